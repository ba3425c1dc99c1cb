#!/bin/sh
# Asks the simulated machine to end. Called `poweroff`, `halt`, `reboot` or `shutdown`.
name=${0##*/}
what=poweroff
[ "$name" = reboot ] && what=reboot
for word in "$@"; do
    case $word in
        -r | --reboot) what=reboot ;;
        -c) exit 0 ;;
    esac
done
echo "$what" > "@CONTROL@"
