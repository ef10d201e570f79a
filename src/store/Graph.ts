import { Context, Effect, Layer, Option, Schema } from "effect"
import { Descriptor } from "../image/Descriptor.ts"
import * as Digest from "../image/Digest.ts"
import { check, type CheckOptions, type Finding } from "./Check.ts"
import { type StoreError } from "./Disk.ts"
import { Home } from "./Home.ts"
import { register, tag } from "./Register.ts"
import { remove } from "./Removal.ts"
import * as View from "./View.ts"

/** No tag, image id or digest is called so. */
export class ImageNotFound extends Schema.TaggedError<ImageNotFound>()("ImageNotFound", { name: Schema.String }) {
