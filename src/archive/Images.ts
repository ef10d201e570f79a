import { ArchiveRefused } from "./Fault.ts"
import * as Docker from "./DockerImages.ts"
import type { LegacyArchive } from "./LegacyImages.ts"
import * as Legacy from "./LegacyImages.ts"
import * as Oci from "./OciImages.ts"
import { nameOf, type Tree } from "./Tree.ts"

/**
 * What an archive, or a layout's folder, holds: images of an OCI layout; of Docker 1.10 and later (`manifest.json`); of
 * Docker 1.9 and before (`repositories`, a folder for each image).
 */
export type Images =
  | { readonly kind: "oci"; readonly images: ReadonlyArray<Oci.OciImage> }
  | { readonly kind: "docker"; readonly images: ReadonlyArray<Docker.DockerImage> }
  | { readonly kind: "legacy"; readonly archive: LegacyArchive }

/** What skopeo writes to `dir:`: the manifest as manifest.json, blobs by their digits, and a file that says which version of this it is. */
const isSkopeoDir = (tree: Tree): boolean => {
  const version = tree.find(nameOf("version"))
  return version !== undefined && Buffer.from(version.slice(0, 32)).toString("latin1").startsWith("Directory Transport Version:")
}

/**
 * Reads what the archive holds, without its layers. Where several ages are in one archive, as Docker writes them for old
 * readers, the newest is taken: an OCI layout keeps the images' digests, and takes names that only `manifest.json` has;
 * `manifest.json` keeps configs. Synchronous; throws `ArchiveRefused` and Node's errors.
 */
export const of = (tree: Tree): Images => {
  if (isSkopeoDir(tree)) {
    throw new ArchiveRefused({
      archive: tree.archive, entry: "", rule: "it is a folder of skopeo's dir: format, which is not read",
      advice: `copy it into an OCI layout, and load that: skopeo copy dir:${tree.archive} oci:${tree.archive}-oci:latest`
    })
  }
  const docker = Docker.read(tree)
  const oci = Oci.read(tree)
  if (oci !== undefined && oci.length > 0) return { kind: "oci", images: docker === undefined ? oci : Oci.named(tree, oci, docker) }
  if (docker !== undefined) return { kind: "docker", images: docker }
  // An archive without entries was a good one to 1.9.
  if (tree.find(nameOf("repositories")) === undefined && tree.folders.length === 0 && !tree.isEmpty) {
    throw new ArchiveRefused({ archive: tree.archive, entry: "", rule: "it holds no images: there is neither an OCI layout nor anything docker save makes" })
  }
  return { kind: "legacy", archive: Legacy.read(tree) }
}
