import { Schema } from "effect"

/** The configuration file `path` (at `line`, where that is known) cannot be used; `problem` says why, without any secret in it. */
export class ConfigError extends Schema.TaggedError<ConfigError>()("ConfigError", {
  path: Schema.String,
  line: Schema.optionalKey(Schema.Int),
  problem: Schema.String
}) {
  override get message() {
    return `the configuration file ${where(this.path, this.line)} cannot be used: ${this.problem}; repair or remove it`
  }
}

/** `path:line`, or the path alone. */
export const where = (path: string, line: number | undefined): string => line === undefined ? path : `${path}:${line}`

/** The configuration (`why`: its file and line) forbids pulling from `name`. */
export class Blocked extends Schema.TaggedError<Blocked>()("Blocked", { name: Schema.String, why: Schema.String }) {
  override get message() {
    return `pulling from ${this.name} is blocked by ${this.why}; change that rule, or pull from elsewhere`
  }
}
