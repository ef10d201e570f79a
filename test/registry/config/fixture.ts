import { readFileSync } from "node:fs"

/** The text of a file in `test/fixtures/config`. */
export const fixture = (name: string): string => readFileSync(new URL(`../../fixtures/config/${name}`, import.meta.url), "utf8")
