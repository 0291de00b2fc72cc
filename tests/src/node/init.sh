# Runs first in the node's namespaces, as their init. $1 is the node's folder.
set -e

# What the programs keep at fixed places of the machine is hidden under folders that end with the namespace.
for folder in /run /var/lib /var/log; do
    mount -t tmpfs testbed "$folder"
done

# The kubelet sets these for the whole kernel; here it sets copies.
mkdir "$1/sysctl"
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy="$1/sysctl/$(echo "$name" | tr / .)"
    cat "/proc/sys/$name" > "$copy"
    mount --bind "$copy" "/proc/sys/$name"
done

ip link set lo up
ip address add SERVICE_IP/32 dev lo
# With an address of its own: a bridge else has that of one of its ports, which come and go with the pods.
ip link add BRIDGE address 02:00:c6:12:00:02 type bridge
ip address add NODE_ADDRESS/24 dev BRIDGE
ip link set BRIDGE up
# Nothing beyond is reached, and a pod that tries is told so at once.
echo 1 > /proc/sys/net/ipv4/ip_forward
ip route add unreachable default

echo INIT_DONE
# A shell that waits also reaps, as an init must.
sleep infinity &
wait
