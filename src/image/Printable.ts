/** `text` for one line of a message: cut to `limit` characters, with whatever could disturb a terminal as `\uXXXX`. */
export const printable = (text: string, limit = 300): string =>
  JSON.stringify(text.length > limit ? `${text.slice(0, limit)}…` : text).slice(1, -1).replaceAll(String.raw`\"`, `"`)
    .replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
      (c) => String.raw`\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)
