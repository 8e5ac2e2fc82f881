#!/usr/bin/env bash
# An admin script: gets a token that allows one thing, and does it. Needs curl and jq.
#
#     COUNTERSIGN_URL=https://auth.example.com COUNTERSIGN_CLIENT_ID=cleanup \
#     COUNTERSIGN_CLIENT_SECRET_FILE=/etc/cleanup/secret \
#     examples/cleanup.sh https://admin.example.com
#
# Ends with 0 when done, 1 when it failed, 2 on wrong usage, 3 when refused, 4 when someone could not be reached.
set -euo pipefail
# Whoever traces this script must not see its secrets.
set +x

die() {
    local code=$1
    shift
    printf 'error: %s\n' "$*" >&2
    exit "$code"
}

# curl, with what is secret on its standard input, since arguments show in `ps`. Puts the answer's body
# into `body` and its code into `code`.
ask() {
    local config=$1 whom=$2 answer
    shift 2
    answer=$(curl --silent --show-error --max-time 30 --config - --write-out '\n%{http_code}' "$@" <<< "$config") \
        || die 4 "$whom cannot be reached"
    code=${answer##*$'\n'}
    body=${answer%$'\n'*}
}

# The value of a variable, or what is in the file that NAME_FILE names.
setting() {
    local name=$1 file_name=$1_FILE
    local value=${!name:-} file=${!file_name:-}
    if [[ -n $value && -n $file ]]; then
        die 2 "both $name and $file_name are set"
    elif [[ -n $file ]]; then
        [[ -r $file ]] || die 2 "cannot read $file (from $file_name)"
        value=$(< "$file")
    fi
    [[ -n $value ]] || die 2 "set $name or $file_name"
    printf '%s' "$value"
}

[[ $# -eq 1 ]] || die 2 "usage: $0 URL-OF-THE-ADMIN-API"
for tool in curl jq; do
    command -v "$tool" > /dev/null || die 2 "$tool is not installed; this script needs curl and jq"
done

api=${1%/}
url=$(setting COUNTERSIGN_URL)
id=$(setting COUNTERSIGN_CLIENT_ID)
secret=$(setting COUNTERSIGN_CLIENT_SECRET)
unset COUNTERSIGN_CLIENT_SECRET
# Ids and secrets are plain text (RFC 3986's unreserved characters): a quote would end curl's setting.
[[ $id =~ ^[A-Za-z0-9._~-]+$ && $secret =~ ^[A-Za-z0-9._~-]+$ ]] \
    || die 2 "the client's id or its secret is not what Countersign made"

# The same as: curl -u "$id:$secret" -d grant_type=client_credentials -d scope=admin:cleanup "$url/oauth/token"
ask "user = \"$id:$secret\"" "$url" \
    -d grant_type=client_credentials -d scope=admin:cleanup "${url%/}/oauth/token"
if [[ $code != 200 ]]; then
    why=$(jq -r '[.error, .error_description // empty] | join(": ")' <<< "$body" 2> /dev/null || true)
    case $code in
        400 | 401) die 3 "no token: ${why:-HTTP $code}" ;;
        429 | 503) die 4 "no token now, try again later: ${why:-HTTP $code}" ;;
        *) die 1 "no token: HTTP $code from $url" ;;
    esac
fi
token=$(jq -r '.access_token // empty' <<< "$body")
[[ -n $token ]] || die 1 "$url gave an answer without a token"

ask "header = \"Authorization: Bearer $token\"" "$api" --request DELETE "$api/sessions/expired"
case $code in
    2??) printf '%s\n' "${body:-done}" ;;
    401 | 403) die 3 "$api refused the token: HTTP $code" ;;
    503) die 4 "$api is not ready, try again later" ;;
    *) die 1 "$api answered HTTP $code" ;;
esac
