#!/bin/sh
# Tells the time of a guest whose clock is a year slow.
exec /usr/bin/date -d "@$(($(/usr/bin/date +%s) - 365 * 24 * 3600))" "$@"
