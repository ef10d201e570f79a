/** What the last part of a whiteout's name begins with. */
export const whiteout = ".wh."
/** The marker of an opaque folder. */
export const opaque = ".wh..wh..opq"
/** Names that aufs kept for itself. */
export const reserved = /(?:^|\/)\.wh\.\.wh\./
/** Where aufs kept what its hard links have in common. */
export const pseudoLinks = ".wh..wh.plnk"
/** One of these. */
export const pseudoLink = /^\.wh\.\.wh\.plnk\/[^/]+$/
