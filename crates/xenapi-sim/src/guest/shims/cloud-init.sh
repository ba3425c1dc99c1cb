#!/bin/sh
# Reports what the simulated boot did, as `cloud-init status` does.
run=@RUN@
format=tabular
[ "$1" = status ] || { echo "cloud-init $1: not simulated" >&2; exit 2; }
shift
while [ $# -gt 0 ]; do
    case $1 in
        -w | --wait) wait=1 ;;
        -l | --long) long=1 ;;
        --format=*) format=${1#--format=} ;;
        --format) format=$2; shift ;;
        *) echo "cloud-init status: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
while [ -n "$wait" ] && [ ! -e "$run/report/code" ]; do sleep 0.05; done
if [ ! -e "$run/report/status" ]; then
    [ "$format" = json ] && echo '{"status": "not started"}' || echo 'status: not started'
    exit 0
fi
case $format in
    json) cat "$run/report/json" ;;
    yaml) cat "$run/report/yaml" ;;
    *) cat "$run/report/status"; [ -z "$long" ] || cat "$run/report/long" ;;
esac
exit "$(cat "$run/report/code" 2>/dev/null || echo 0)"
