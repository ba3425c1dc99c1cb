# Makes programs that are copied into the guest ones that may not be run. Those that it has, stay so.
set -e
for directory in /home /root /tmp /var /opt /srv /run /dev/shm; do
    [ -d "$directory" ] || continue
    mount --bind "$directory" "$directory"
    mount -o remount,bind,noexec "$directory"
done
