#!/usr/bin/env bash
# Boots a container whose one service is `dram.service`, and sees what the unit promises: an account of its own, no
# network, no capabilities, an answer over the socket, a new start after a crash and after silence, an end in order.
#
#     targets/systemd/check.sh target/release/dram models/zoo/intents.dram
#
# Needs root, systemd-nspawn (Debian: systemd-container), python3 and nsenter. This machine's own files are seen
# through an overlay in memory, which nothing outlives. Takes a minute: the watchdog waits half of it.
set -euo pipefail
dram=$1 bundle=$2
here=$(cd "$(dirname "$0")" && pwd)
stage=$(mktemp -d)
trap 'umount -q "$stage/root" || true; umount -q "$stage" || true; rmdir "$stage"' EXIT
mount -t tmpfs tmpfs "$stage"
mkdir "$stage"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" "$stage/root"
root=$stage/root
install -D "$dram" "$root/usr/bin/dram"
install -D --mode 644 "$here/dram.service" "$root/etc/systemd/system/dram.service"
"$dram" install "$bundle" --slot-dir "$root/var/lib/dram" >/dev/null

cat >"$root/root/check" <<'INSIDE'
set -eu
exec >/root/result 2>&1
ok() { echo "ok   $*"; }
no() { echo "FAIL $*"; exit 1; }
is() { [ "$2" = "$3" ] && ok "$1: $3" || no "$1: $2 expected, got $3"; }
of() { systemctl show dram --property "$1" --value; }
ask() {
    python3 -c 'import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect("/run/dram/socket")
s.sendall(b"{\"id\":7,\"text\":\"wake me at six\"}\n")
print(s.makefile().readline()[:15])'
}
until_running_as_other_than() {
    for _ in $(seq 600); do
        pid=$(of MainPID)
        [ "$pid" != 0 ] && [ "$pid" != "$1" ] && [ "$(of ActiveState)" = active ] && return 0
        sleep 0.1
    done
    no "a new start after $1"
}
systemctl start dram
pid=$(of MainPID)
is "state" active "$(of ActiveState)"
is "memory at most, MiB" 64 "$(($(of MemoryMax) >> 20))"
status() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$pid/status"; }
[ "$(status Uid)" -ge 61184 ] && ok "an account of its own: $(status Uid)" || no "account $(status Uid)"
is "capabilities" 0000000000000000 "$(status CapBnd)"
is "no new privileges" 1 "$(status NoNewPrivs)"
is "system calls are filtered" 2 "$(status Seccomp)"
routes=$(nsenter -t "$pid" -n cat /proc/net/route | tail -n +2 | wc -l)
is "routes to anywhere" 0 "$routes"
is "an answer" '{"id":7,"labels' "$(ask)"
kill -KILL "$pid"
until_running_as_other_than "$pid"
ok "a new start after a crash"
kill -STOP "$pid"
until_running_as_other_than "$pid"
ok "a new start after half a minute of silence"
is "an answer" '{"id":7,"labels' "$(ask)"
systemctl stop dram
is "ended" success "$(of Result)"
echo done
INSIDE
cat >"$root/etc/systemd/system/check.service" <<'UNIT'
[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=5min
ExecStart=/bin/bash /root/check
ExecStopPost=/usr/bin/systemctl poweroff --force
UNIT
timeout 300 systemd-nspawn --quiet --register=no --keep-unit --directory "$root" --boot --console=pipe \
    systemd.unit=check.service >"$stage/console" 2>&1 || true
cat "$root/root/result" || { cat "$stage/console"; exit 1; }
tail -1 "$root/root/result" | grep -q '^done$'
