#!/bin/sh
# Lays out all files of an image: collect.sh PROGRAM ROOT
# The program, the libraries it is linked with, and the authorities by which it knows servers; no shell, no tools.
set -eu
program=$1
root=$2
mkdir -p "$root/bin" "$root/etc/ssl/certs" "$root/var/lib/$(basename "$program")"
strip --strip-debug -o "$root/bin/$(basename "$program")" "$program"
# ldd names each library's place, the loader's included.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
