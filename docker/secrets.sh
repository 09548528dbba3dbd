#!/bin/sh
# The secrets that compose.yml reads, in docker/secrets.
#
#   docker/secrets.sh          makes the passwords that are not there yet
#   docker/secrets.sh token    keeps Label Studio's access token, read from standard input
#
# Containers read them as users of their own, so the files may be read by all; only you may enter the folder.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
put() {
  rm -f "secrets/$1" # it may only be read
  printf '%s' "$2" >"secrets/$1"
  chmod 444 "secrets/$1"
}
keep() {
  [ -s "secrets/$1" ] || put "$1" "$2"
}
if [ "${1:-}" = token ]; then
  echo "the token of Label Studio (Account & Settings, Personal Access Token), then Enter:" >&2
  read -r token
  [ -n "$token" ] || { echo "nothing was given: the token is as it was" >&2; exit 1; }
  put label_studio_token "$token"
  exit
fi
keep label_studio_password "$(random)"
keep redis_password "$(random)"
keep backend_login "label-studio:$(random)"
keep webhook_secret "$(random)"
echo "made in docker/secrets; Label Studio's first password is in label_studio_password, its token is yours to add"
