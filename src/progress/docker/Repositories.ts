import type { PullEvent } from "../PullEvent.ts"
import * as Words from "./Words.ts"

interface Repository {
  readonly name: string
  readonly v1: boolean
  /** Whether all its tags are pulled, each under a reference of its own. */
  readonly whole: boolean
  newer: boolean
}

/** The repositories that are asked for images, by what was asked for: several tags end with one status. */
export class Repositories {
  private readonly asked = new Map<string, Repository>()

  /** Notes one, and says whether it is new: each tag of a repository that is pulled as a whole asks for it again. */
  begin({ name, protocol, reference, tags }: Extract<PullEvent, { readonly _tag: "repository" }>): boolean {
    if (this.of(reference)?.whole === true) return false
    this.asked.set(reference, { name, v1: protocol === "v1", whole: tags !== undefined, newer: false })
    return true
  }

  /** The repository that a reference belongs to: asked for by the same text, or as a whole. */
  of(reference: string): Repository | undefined {
    const { ref } = Words.names(reference)
    return this.asked.get(reference) ?? (ref === undefined ? undefined : this.asked.get(reference.slice(0, -ref.length - 1)))
  }

  /** The closing status of a pull that is done, unless it is of one tag among all. */
  done(reference: string, newer: boolean): ReadonlyArray<string> {
    const own = this.asked.get(reference)
    const repository = this.of(reference)
    this.end(reference)
    if (own === undefined && repository?.whole === true) {
      repository.newer ||= newer
      return []
    }
    return [Words.closing(newer || own?.newer === true, Words.names(reference))]
  }

  /** Forgets one. */
  end(reference: string): void {
    this.asked.delete(reference)
  }
}
