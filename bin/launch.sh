# Sourced by the commands with $self set to the command's own file: runs its bundle on the first Node >= 22.19 of PATH and
# of the project's own. It ends in exec: one pid, so signals, exit codes and kill are exact.
case $self in */*) here=${self%/*} ;; *) here=. ;; esac
root=$(cd "${here:-/}/.." && pwd -P)
command=${self##*/}
bundle=$root/dist/$command.js

if [ ! -e "$bundle" ]; then
  echo "$command: $bundle is not there; build it with 'npm ci' (or 'npm run build') in $root" >&2
  exit 1
fi
# Only a checkout has sources: there, never run what was built from older ones.
if [ -d "$root/src/main" ] && [ -n "$(find "$root/src" -name '*.ts' -newer "$bundle" -print)" ]; then
  echo "$command: dist/ is older than src/; build it again with 'npm run build' in $root" >&2
  exit 1
fi

fits() {
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  major=${version%%.*}
  minor=${version#*.}
  minor=${minor%%.*}
  case $major$minor in *[!0-9]* | '') return 1 ;; esac
  [ "$major" -gt 22 ] || { [ "$major" -eq 22 ] && [ "$minor" -ge 19 ]; }
}

# A small young generation: the buffers of a download die young, and collecting them often costs less time than it saves memory. An old one
# that is collected when it has doubled, and not at four times its size: of millions of names few are kept, and the others would stand in memory for long.
# Nothing is compiled beside the main thread for the first tier: a process that exits while such a job waits for a collection never ends
# (nodejs/node issue 54918; seen once, in `graph du` of 100,000 images).
try() {
  if [ -x "$1" ] && fits "$1"; then
    found=$1
    shift
    exec "$found" --disable-warning=ExperimentalWarning --max-semi-space-size=1 --heap-growing-percent=100 --no-concurrent-sparkplug "$bundle" "$@"
  fi
}

rest=$PATH:
while [ -n "$rest" ]; do
  folder=${rest%%:*}
  rest=${rest#*:}
  try "${folder:-.}/node" "$@"
done
try "$root/node_modules/.bin/node" "$@"
echo "$command: needs Node.js 22.19 or newer on PATH (found: $(node --version 2>/dev/null || echo none)); install one from nodejs.org or your package manager" >&2
exit 1
