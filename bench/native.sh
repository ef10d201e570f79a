#!/usr/bin/env bash
# The native pipeline to compare with: curl, openssl, igzip or zstd, and GNU tar, two layers at a time, both digests checked.
# usage: native.sh HOST/NAME:TAG OUT      unpacks each layer to OUT/l/N (no blob is kept)
set -euo pipefail
ref=$1 out=$2
host=${ref%%/*} rest=${ref#*/}
name=${rest%:*} tag=${rest##*:}
export base=http://$host/v2/$name out
mkdir -p "$out/l" "$out/sum"
curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
  "$base/manifests/$tag" -o "$out/manifest.json"
curl -fsS "$base/blobs/$(jq -r .config.digest "$out/manifest.json")" -o "$out/config.json"
jq -r -n --slurpfile m "$out/manifest.json" --slurpfile c "$out/config.json" \
  '[$m[0].layers, $c[0].rootfs.diff_ids] | transpose | to_entries | sort_by(-.value[0].size)[] | "\(.key) \(.value[0].digest) \(.value[0].mediaType) \(.value[1])"' >"$out/layers"
layer() {
  local n=$1 digest=$2 type=$3 diff=$4 un='igzip -dc' got
  case $type in *zstd) un='zstd -dcq' ;; *tar) un=cat ;; esac
  local s=$out/sum/$n
  mkdir "$out/l/$n"
  mkfifo "$s.a" "$s.b"
  openssl dgst -sha256 -r <"$s.a" >"$s.raw" & local a=$!
  openssl dgst -sha256 -r <"$s.b" >"$s.diff" & local b=$!
  curl -fsS "$base/blobs/$digest" | tee "$s.a" | $un | tee "$s.b" |
    tar -xp --numeric-owner --same-owner --xattrs --delay-directory-restore -f - -C "$out/l/$n"
  wait $a $b
  read -r got _ <"$s.raw"; [ "sha256:$got" = "$digest" ]
  read -r got _ <"$s.diff"; [ "sha256:$got" = "$diff" ]
}
export -f layer
xargs -a "$out/layers" -P 2 -L 1 bash -c 'set -euo pipefail; layer "$@"' _
