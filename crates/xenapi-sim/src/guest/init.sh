# The first process of a guest: builds its root from what stands in this directory, moves there, says
# so, and stays until its standard input ends. Run by `sh` in new namespaces, with the guest's directory
# as the working directory; paths are relative, since those above it may not be passed through. The
# arguments are directories that it sees as the machine does.
set -e
cd -P fs
mount -c --bind . .
cd -P ../fs
mkdir -p proc dev etc usr sys mnt srv opt

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
fi
# Large, and of interest only to be read.
for directory in alternatives ssl; do
    if [ -d /etc/$directory ]; then
        mkdir -p etc/$directory
        mount -c --rbind /etc/$directory etc/$directory
    fi
done
for directory in bin sbin lib lib32 lib64 libx32; do
    if [ -L /$directory ]; then
        ln -sfn "$(readlink /$directory)" $directory
    elif [ -d /$directory ]; then
        mkdir -p $directory
        mount -c --rbind /$directory $directory
    fi
done
[ -d /opt ] && mount -c --rbind /opt opt

mount -c -t proc proc proc
mount -c -t tmpfs -o mode=755,size=1m tmpfs dev
for device in null zero full random urandom tty; do
    : > dev/$device
    mount -c --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -c -t tmpfs -o mode=1777 tmpfs dev/shm
mount -c -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

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
