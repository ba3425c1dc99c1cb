# The first process of a guest: mounts its root together from what stands in this directory, moves there,
# says so, and stays until its standard input ends. Run by `sh` in new namespaces, with the guest's
# directory as the working directory; paths are relative, since those above it may not be passed through.
# The arguments are directories that it sees as the machine does.
set -e
cd -P fs
mount -c --bind . .
cd -P ../fs

# A layer of the guest's own over the machine's programs; without layers, the programs as they are.
if ! mount -c -t overlay -o lowerdir=/usr,upperdir=../over/usr,workdir=../over/usr.work,userxattr overlay usr 2>../over/usr.log
then
    mount -c --rbind /usr usr
    mount -c --rbind ../over/usr/local usr/local
    layers=without
fi
if ! mount -c -t overlay -o lowerdir=../../.base/etc,upperdir=../over/etc,workdir=../over/etc.work,userxattr overlay etc 2>../over/etc.log
then
    [ -e etc/passwd ] || cp -a ../../.base/etc/. etc/
    mkdir -p etc/alternatives etc/ssl
fi
mount -c -a -T ../mounts

for directory in "$@"; do
    mkdir -p ".$directory"
    mount -c --rbind "$directory" ".$directory"
done

pivot_root . .
umount -c -l .
cd /
# Whoever loses its parent becomes a child of this process, and must not stay when it has ended.
trap '' CHLD
echo "ready ${layers:-with}"
exec cat > /dev/null
