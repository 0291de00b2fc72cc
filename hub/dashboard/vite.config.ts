// Builds the dashboard to dist/, which hub/build.rs embeds. Nothing may be inlined: the hub's Content-Security-Policy
// allows scripts, styles and images only from the hub itself.
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte()],
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  // `npm run dev` beside a hub or `node mock/server.mjs --port 8480`.
  server: { proxy: { '/api': 'http://127.0.0.1:8480' } },
  test: { include: ['src/**/*.test.ts', 'mock/**/*.test.mjs'] },
});
