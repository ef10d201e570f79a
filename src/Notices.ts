import { Effect, Result } from "effect"
import * as Reference from "./image/Reference.ts"
import type { Hub } from "./progress/Hub.ts"
import type { PullEvent } from "./progress/PullEvent.ts"
import { Registry } from "./registry/Registry.ts"

/** Until the scope closes, what the registry's users should know of (a mirror left out, a limit that is near) is a warning in `hub`. */
export const heard = Effect.fnUntraced(function*(hub: Hub<PullEvent>, text: string) {
  const registry = yield* Registry
  const { domain, reference } = Result.match(Reference.parse(text), {
    onFailure: () => ({ domain: undefined, reference: text }), onSuccess: (parsed) => ({ domain: parsed.domain, reference: Reference.print(parsed) })
  })
  // A name that the configuration completes may be of any registry.
  const any = (yield* Effect.orElseSucceed(registry.names(text), () => [])).length > 0
  yield* registry.listen((notice) => {
    if (any || notice.domain === domain) hub.publish({ _tag: "warning", reference, message: notice.message })
  })
})
