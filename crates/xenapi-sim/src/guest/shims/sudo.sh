#!/bin/sh
# All users of a simulated guest have the same rights: this runs the command.
while [ $# -gt 0 ]; do
    case $1 in
        -u | -g | -p | -C | -h | -r | -t | -T | -U) shift 2 || exit 1 ;;
        -i | -s) login=1; shift ;;
        -v | -k | -K) exit 0 ;;
        --) shift; break ;;
        -*) shift ;;
        [A-Za-z_]*=*) export "$1"; shift ;;
        *) break ;;
    esac
done
if [ $# -eq 0 ]; then
    [ -n "$login" ] && exec "${SHELL:-/bin/sh}"
    echo "usage: sudo [-u user] command" >&2
    exit 1
fi
exec "$@"
