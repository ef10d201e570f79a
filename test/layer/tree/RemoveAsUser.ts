// Run by Remove.test.ts as a process of its own: removes its arguments as the user 65534.
import { removeTree } from "../../../src/layer/tree/Remove.ts"
import { thrown } from "../apply/Entries.ts"

process.setgroups?.([])
process.setgid?.(65534)
process.setuid?.(65534)
const errors = process.argv.slice(2).map((path) => thrown(() => removeTree(path))).filter((error) => error !== undefined)
process.stdout.write(JSON.stringify(errors.map(String)))
