#!/bin/sh
# Makes the secrets that compose.yml reads, in docker/secrets, where they are not there yet.
#
# Containers read them as users of their own, so the files may be read by all; only you may enter the folder.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}
keep() {
  [ -s "secrets/$1" ] || printf '%s' "$2" >"secrets/$1"
  chmod 444 "secrets/$1"
}
keep redis_password "$(random)"
keep backend_login "label-studio:$(random)"
keep webhook_secret "$(random)"
echo "made in docker/secrets; label_studio_token is yours to add: Label Studio, Account & Settings, Personal Access Token"
