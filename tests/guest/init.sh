#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The guest's first process: loads what the kernel lacks, mounts the share, then runs the
# scripts that the host sends over a virtio-serial port and sends back what they print.
#
# Host to guest: "RUN <id> <bytes>\n" and that many bytes of script.
# Guest to host: "BOOT <mount status>\n" once, then per script
#                "DONE <id> <status> <bytes>\n" and that many bytes of output.
export PATH=/bin HOME=/tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /share

for module in /lib/*.ko; do
    [ -e "$module" ] && insmod "$module"
done

# share=TAG on the kernel's command line names what is mounted on /share.
mounted=0
for word in $(cat /proc/cmdline); do
    case $word in
    share=*) mount -t virtiofs "${word#share=}" /share || mounted=$? ;;
    esac
done

until [ -c /dev/vport0p1 ] || [ -c /dev/vport1p1 ]; do sleep 0.05; done
exec 3<>"$(echo /dev/vport?p1)"

echo "BOOT $mounted" >&3
cd /tmp
while read -r word id bytes <&3; do
    [ "$word" = RUN ] || continue
    head -c "$bytes" <&3 >"/tmp/.script"
    sh /tmp/.script </dev/null >/tmp/.output 2>&1 3<&-
    status=$?
    {
        echo "DONE $id $status $(stat -c %s /tmp/.output)"
        cat /tmp/.output
    } >&3
done
echo "init: the control port is gone"
sleep 1000000
