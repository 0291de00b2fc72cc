// A real OpenID provider for the hub's own test (hub/src/auth/oidc/tests.rs): `node oidc-provider.mjs REDIRECT_URL SECRET`
// prints its issuer. Who asks it to log in is the person that `GET /as/PERSON` named last; nobody types anything.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [redirect, secret] = process.argv.slice(2);
const PEOPLE = {
  ann: { email: 'ann@example.com', email_verified: true, groups: ['all', 'sre'] },
  bob: { email: 'bob@example.com', email_verified: true, groups: ['sales'] },
  eve: { email: 'ann@example.com', email_verified: false, groups: ['sre'] },
};
const SCOPES = 'openid email groups';
let person = 'ann';

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [{ client_id: 'hub', client_secret: secret, redirect_uris: [redirect] }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
  // As most providers do: the ID token has the claims of the scopes.
  conformIdTokenClaims: false,
  cookies: { keys: ['a test has no secrets'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...PEOPLE[id] }) }),
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope(SCOPES);
    await grant.save();
    return grant;
  },
});
const handle = provider.callback();
server.on('request', (request, response) => {
  if (request.url.startsWith('/interaction/'))
    return provider.interactionFinished(request, response, { login: { accountId: person } });
  if (!request.url.startsWith('/as/')) return handle(request, response);
  person = request.url.slice('/as/'.length);
  return response.end();
});
console.log(issuer);
