/** Images with something of everything, made by real tools, and their trees as umoci unpacks them. */
import { assert } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { mkdirSync, renameSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { type Digest, parts } from "../../src/image/Digest.ts"
import type { Body, Built } from "../../src/testing/ImageBuilder.ts"
import { Tree } from "../../src/testing/index.ts"
import type { TreeRecord } from "../../src/testing/Tree.ts"
import type { Lab } from "./peers.ts"

const write = (path: string, body: Body): void => {
  mkdirSync(dirname(path), { recursive: true })
  if (body instanceof Uint8Array) writeFileSync(path, body)
  else renameSync(body.file, path)
}

/** An OCI image layout with `built` as `tag`, for skopeo and umoci to read. Blobs that are files are moved into it. */
export const layout = (folder: string, tag: string, built: Built): string => {
  const blob = (digest: Digest) => join(folder, "blobs", ...Object.values(parts(digest)))
  for (const [digest, body] of built.blobs) write(blob(digest), body)
  for (const [digest, { raw }] of built.manifests) write(blob(digest), raw)
  const { digest, mediaType, size } = built.manifest.descriptor
  writeFileSync(join(folder, "oci-layout"), `{"imageLayoutVersion":"1.0.0"}`)
  writeFileSync(join(folder, "index.json"), JSON.stringify({
    schemaVersion: 2, manifests: [{ mediaType, digest, size, annotations: { "org.opencontainers.image.ref.name": tag } }]
  }))
  return `${folder}:${tag}`
}

/** The same for skopeo's `dir:`, which also takes Docker's media types. */
export const directory = (folder: string, built: Built): string => {
  for (const [digest, body] of built.blobs) write(join(folder, parts(digest).hex), body)
  for (const [digest, { raw }] of built.manifests) write(join(folder, `${parts(digest).hex}.manifest.json`), raw)
  writeFileSync(join(folder, "manifest.json"), built.manifest.raw)
  writeFileSync(join(folder, "version"), "Directory Transport Version: 1.1\n")
  return folder
}

/**
 * The tree umoci makes of an image in a layout. A folder that no layer has an entry for gets the time of umoci's own run;
 * ours gets the epoch, and that is what is put here for it. Nothing else is changed.
 */
export const umociTree = Effect.fnUntraced(function*(lab: Lab, image: string, folder: string) {
  const began = BigInt(yield* Clock.currentTimeMillis) * 1_000_000n
  yield* lab.must("umoci", ["raw", "unpack", "--image", image, folder])
  return Tree.walk(folder).map((record): TreeRecord => record.type === "dir" && record.mtimeNs >= began ? { ...record, mtimeNs: 0n } : record)
})

/** The image `from` as skopeo copies it out of a registry and umoci unpacks it. */
export const reference = Effect.fnUntraced(function*(lab: Lab, from: string, name: string) {
  yield* lab.copy(`docker://${from}`, `oci:${lab.path(`${name}-layout`)}:1`, "--format", "oci")
  return yield* umociTree(lab, `${lab.path(`${name}-layout`)}:1`, lab.path(`${name}-umoci`))
})

/** Both trees are the same in every field. */
export const assertSame = (ours: string | ReadonlyArray<TreeRecord>, theirs: ReadonlyArray<TreeRecord>): void => {
  assert.deepStrictEqual(Tree.diff(typeof ours === "string" ? Tree.walk(ours) : ours, theirs), [])
}

/** The script of the first layer: run in the layer's root folder by sh, as root, with the host's own tools. */
export const first = `
set -eu
mkdir -p usr/lib usr/bin srv/a/b srv/c etc/deep opt/full opt/hidden/sub var/empty dev
chmod 0711 usr/lib; chmod 1777 var/empty; chown 33:44 srv/a; chmod 2755 srv/a
ln -s usr/lib lib; ln -s /nowhere etc/dangling; ln -s "$(head -c 1500 /dev/zero | tr '\\0' x)" etc/far
chown -h 5:6 etc/dangling
echo one >usr/lib/one; echo gone >usr/lib/gone; chmod 0444 usr/lib/one; touch -d '2001-02-03 04:05:06.123456789' usr/lib/one
echo linked >srv/a/b/original; ln srv/a/b/original srv/c/second; ln srv/a/b/original usr/third
cp /bin/true usr/bin/su; chmod 4755 usr/bin/su; cp /bin/true usr/bin/wall; chown 0:5 usr/bin/wall; chmod 2755 usr/bin/wall
cp /bin/true usr/bin/ping; setcap cap_net_raw+ep usr/bin/ping
echo x >etc/attr; setfattr -n user.note -v 0x00ff0a80 etc/attr; setfattr -n trusted.mark -v here etc/attr; setfattr -n user.folder -v 1 srv/c
long=$(printf 'n%.0s' $(seq 1 200)); mkdir -p "deep/$long/$long"; echo long >"deep/$long/$long/$long"; ln "deep/$long/$long/$long" "deep/$long/link-$long"
ln -s "../$long/$long/$long" "deep/$long/to-$long"
printf 'latin' >"$(printf 'etc/caf\\351')"; mkdir "$(printf 'srv/\\377\\376')"; echo in >"$(printf 'srv/\\377\\376/\\200')"; ln -s "$(printf '\\377')" "$(printf 'srv/to-\\377')"
printf 'nl' >"$(printf 'etc/new\\nline')"; echo space >'etc/ lead and trail '; echo back >'etc/back\\slash'; echo utf >etc/naïve-ø
truncate -s 3M srv/sparse; printf middle | dd of=srv/sparse bs=1 seek=1048577 conv=notrunc status=none; truncate -s 1M srv/hole
mknod dev/null c 1 3; chmod 666 dev/null; mknod dev/disk b 259 65537; mkfifo -m 0620 dev/pipe; chown 7:8 dev/pipe
: >etc/empty; chmod 0 etc/empty; touch -d '1969-12-31 23:59:58.5' etc/empty; touch -h -d '1999-01-01 00:00:00.000000001' etc/dangling
touch -d '2060-01-01' srv/c/second; chown 4000000000:4000000001 etc/attr
for n in 1 2 3; do echo $n >opt/full/$n; echo $n >opt/hidden/$n; echo $n >opt/hidden/sub/$n; done
mkdir shut; echo in >shut/in; chmod 0000 shut; mkdir -m 0300 write; mkdir -m 0555 read; echo r >read/r
echo file >swap-file; mkdir swap-dir; echo in >swap-dir/in; ln -s usr swap-link
for f in etc opt/full var deep srv; do touch -d '2010-10-10 10:10:10.987654321' $f; done
`

/** The script of the second layer: run in what the first one made. */
export const second = `
set -eu
rm usr/lib/gone; echo foo >usr/lib/foo; ln usr/lib/one usr/lib/one-again; chmod 0644 usr/lib/one
rm -r opt/full; mkdir opt/full; echo new >opt/full/new; rm opt/hidden/1; rm -r opt/hidden/sub; echo two >opt/hidden/2
rm swap-file; mkdir swap-file; echo in >swap-file/in; rm -r swap-dir; echo file >swap-dir; rm swap-link; mkdir swap-link; echo x >swap-link/x
ln srv/c/second srv/fourth; rm usr/third; chmod 0700 srv/a; chown 1:2 srv/a/b
echo changed >etc/empty; setfattr -x user.note etc/attr; setfattr -n user.other -v 2 etc/attr
rm dev/pipe; mknod dev/pipe p; rm dev/disk; echo no device >dev/disk
rm "$(printf 'etc/caf\\351')"; echo more >"$(printf 'srv/\\377\\376/\\201')"; echo in2 >shut/in2
touch -d '2011-11-11 11:11:11.111111111' etc opt opt/full; touch -d '2002-02-02' usr/lib
`
