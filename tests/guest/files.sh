# SPDX-License-Identifier: Apache-2.0
#
# What Linux's own file systems can do, in the guest, on /share, of which /share/mounted
# is a file system of its own. Runs with "set -e"; anything unexpected ends it.

fails() {
    text=$1
    shift
    if out=$("$@" 2>&1); then
        echo "worked: $*"
        exit 1
    fi
    case $out in
    *"$text"*) ;;
    *)
        echo "$*: not \"$text\" but: $out"
        exit 1
        ;;
    esac
}

same() {
    [ "$1" = "$2" ] || { echo "\"$1\" instead of \"$2\""; exit 1; }
}

echo 'u:x:1234:2345:u:/tmp:/bin/sh
v:x:1235:2346:v:/tmp:/bin/sh' >/etc/passwd
printf 'u:x:2345:\nv:x:2346:\n' >/etc/group
umask 022
cd /share

echo "-- extended attributes"
mkdir attributes
cd attributes
touch file
ln -s file link
mkfifo fifo
guest-tool setxattr file user.one 6f6e65
guest-tool setxattr file user.none ''
guest-tool setxattr file trusted.two 00ff
guest-tool setxattr . user.folder 66
guest-tool setxattr link trusted.link 6c
guest-tool setxattr fifo trusted.fifo 66
same "$(guest-tool getxattr file user.one)" 6f6e65
same "$(guest-tool getxattr file user.none)" ''
same "$(guest-tool listxattr file | sort | tr '\n' ' ')" 'trusted.two user.none user.one '
same "$(guest-tool listxattr link)" trusted.link
same "$(guest-tool listxattr fifo)" trusted.fifo
guest-tool removexattr file user.none
fails 'No data' guest-tool getxattr file user.none
fails 'No data' guest-tool removexattr file user.none
fails 'not permitted' guest-tool setxattr fifo user.no 00
fails 'not supported' guest-tool setxattr file other.no 00
chmod 666 file
fails 'not permitted' su u -c 'guest-tool setxattr file trusted.no 00'
same "$(su u -c 'guest-tool getxattr file user.one')" 6f6e65
su u -c 'guest-tool setxattr file user.of-u 75'
chmod 600 file
fails 'denied' su u -c 'guest-tool getxattr file user.one'
cd ..

echo "-- access control lists"
mkdir lists
# user::rw- user:1234:rw- group::--- mask::rw- other::---
list=02000000 rw=0600 rwx=0700 no=0000 all=ffffffff
u=0100 user=0200 g=0400 m=1000 o=2000 number=d2040000
rest=$g$no$all
access=$list$u$rw$all$user$rw$number$rest$m$rw$all$o$no$all
# The same with rwx for rw, as what a folder hands on.
default=$list$u$rwx$all$user$rwx$number$rest$m$rwx$all$o$no$all
# What of that a file gets which is made with mode 666: the mask holds back user 1234.
heir=$list$u$rw$all$user$rwx$number$rest$m$rw$all$o$no$all
echo secret >lists/file
guest-tool setxattr lists/file system.posix_acl_access "$access"
same "$(stat -c %a lists/file)" 660
same "$(su u -c 'cat lists/file')" secret
su u -c 'echo more >>lists/file'
fails 'denied' su v -c 'cat lists/file'
chmod 600 lists/file # takes the mask away
fails 'denied' su u -c 'cat lists/file'
mkdir -m 777 lists/folder
guest-tool setxattr lists/folder system.posix_acl_default "$default"
su v -c 'umask 077; mkdir lists/folder/child; echo heir >lists/folder/child/file'
same "$(stat -c %a lists/folder/child/file)" 660
same "$(guest-tool getxattr lists/folder/child/file system.posix_acl_access)" "$heir"
same "$(su u -c 'cat lists/folder/child/file')" heir
same "$(guest-tool getxattr lists/folder/child system.posix_acl_default)" "$default"
guest-tool removexattr lists/folder system.posix_acl_default
su v -c 'umask 077; touch lists/folder/plain'
same "$(stat -c %a lists/folder/plain)" 600

echo "-- submounts"
same "$(cat mounted/inside)" 'in the mount'
[ "$(stat -c %d mounted/.)" != "$(stat -c %d .)" ]
same "$(stat -c %d mounted/inside)" "$(stat -c %d mounted/.)"
grep -q '^[^ ]* /share/mounted virtiofs ' /proc/mounts
mountpoint=$(df -P mounted/inside | tail -n 1 | sed 's/.* //')
same "$mountpoint" /share/mounted
[ "$(stat -f -c %b mounted/inside)" != "$(stat -f -c %b .)" ]
fails 'ross-device' ln attributes/file mounted/link
same "$(find . -xdev -name inside)" ''
same "$(find . -name inside)" ./mounted/inside
echo travels >traveller
mv traveller mounted/moved # by copying
same "$(cat mounted/moved)" travels
mv mounted/moved traveller
same "$(cat traveller)" travels

echo "-- files without a name"
guest-tool tmpfile . linked
same "$(cat linked)" nameless
[ ! -e never ]
mkdir -m 777 nameless
su u -c 'guest-tool tmpfile nameless of-u'
same "$(stat -c %u,%g,%a nameless/of-u)" 1234,2345,640
guest-tool tmpfile mounted linked-there

echo "-- files with holes"
guest-tool sparse sparse
same "$(stat -c %s sparse)" 8388608
cp sparse copy
cmp sparse copy

echo "-- an overlay"
mkdir -p overlay/upper overlay/work /tmp/lower/folder /tmp/lower/gone /tmp/merged
for name in removed changed renamed folder/inside gone/inside; do
    echo "lower $name" >"/tmp/lower/$name"
done
chmod 4755 /tmp/lower/renamed
layers=lowerdir=/tmp/lower,upperdir=/share/overlay/upper,workdir=/share/overlay/work
mount -t overlay overlay -o "$layers,redirect_dir=on" /tmp/merged
rm /tmp/merged/removed
echo changed >>/tmp/merged/changed
mv /tmp/merged/renamed /tmp/merged/new-name
mv /tmp/merged/folder /tmp/merged/new-folder
rm -r /tmp/merged/gone
mkdir /tmp/merged/gone
ls_merged() { (cd /tmp/merged && find . | sort | tr '\n' ' '); }
merged=$(ls_merged)
same "$merged" '. ./changed ./gone ./new-folder ./new-folder/inside ./new-name '
umount /tmp/merged
same "$(stat -c %F,%t,%T overlay/upper/removed)" 'character special file,0,0'
same "$(guest-tool getxattr overlay/upper/gone trusted.overlay.opaque)" 79
mount -t overlay overlay -o "$layers,redirect_dir=on" /tmp/merged
same "$(ls_merged)" "$merged"
same "$(cat /tmp/merged/changed | tr '\n' ' ')" 'lower changed changed '
same "$(cat /tmp/merged/new-folder/inside)" 'lower folder/inside'
umount /tmp/merged
cd /tmp
