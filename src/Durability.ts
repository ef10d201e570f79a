import { Context } from "effect"

/** `safe`: files written outlive a power loss once the pull has ended. `fast`: unpacked files are not waited for; blobs are. */
export const Durability = Context.Reference<"safe" | "fast">("Pull/Durability", { defaultValue: () => "safe" })
