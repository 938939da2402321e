#!/bin/sh
# The work of the crontab @name@: updates what has changed, keeps a log, and prints something only when a person has to
# know. cron mails what is printed to MAILTO, or to the owner of the crontab.
#
# Log, with one older one: ~/.local/state/adapterctl/@name@.log, or the file that ADAPTERCTL_LOG names.
# Try it by hand: run this file. It needs no lock of its own: a second adapterctl in the workspace ends with 4.
#
# Exit codes:
@exit_codes@
# 124 the time limit of @limit@ seconds was over; the next run goes on from there
set -u

log="${ADAPTERCTL_LOG:-${XDG_STATE_HOME:-$HOME/.local/state}/adapterctl/@name@.log}"
mkdir -p "$(dirname "$log")" || exit 7
if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt 10000000 ]; then mv -f "$log" "$log.1"; fi
touch "$log" || exit 7
before=$(wc -c <"$log")

@environment@

step() {
    echo "$(date '+%Y-%m-%dT%H:%M:%S%z') $*" >>"$log"
    timeout --kill-after=30 @limit@ "$@" >>"$log" 2>&1
}

code=0
@steps@
echo "$(date '+%Y-%m-%dT%H:%M:%S%z') exit code $code" >>"$log"

case $code in
0 | 99) exit 0 ;;
2) why="the configuration is not valid" ;;
3) why="the gate said no; the champion is untouched, look at the candidate" ;;
4) why="another adapterctl was at work" ;;
5) why="the registry cannot be reached" ;;
6) why="rows, an adapter or the base model cannot be used" ;;
7) why="the disk is full, read-only or not permitted" ;;
130 | 143) why="it was interrupted; the next run goes on from there" ;;
124) why="it took longer than @limit@ seconds and was stopped" ;;
126 | 127) why="adapterctl is not where this script looks for it" ;;
*) why="an error nobody foresaw" ;;
esac
echo "@name@: $why (exit code $code). The end of $log:"
echo
tail -c "+$((before + 1))" "$log" | tail -n 40
exit "$code"
