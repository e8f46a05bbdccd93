# What `setup` and `run` share. Sourced, not run.
# shellcheck shell=bash

say() { printf 'zfs_guest: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# The tools alone prove nothing: they are installed here for the guest.
native_zfs() { [ -c /dev/zfs ] && command -v zpool >/dev/null && zpool list >/dev/null 2>&1; }

virtiofsd() {
  local path
  for path in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do
    [ ! -x "$path" ] || { printf '%s' "$path"; return; }
  done
  return 1
}

# The newest kernel that a module was built for.
guest_release() {
  local module
  module=$(printf '%s\n' /lib/modules/*-cloud-amd64/updates/dkms/zfs.ko* | sort -V | tail -n 1)
  [ -e "$module" ] || return 1
  module=${module#/lib/modules/}
  printf '%s' "${module%%/*}"
}

guest_is_ready() {
  local release
  release=$(guest_release) && [ -r "/boot/vmlinuz-$release" ] && virtiofsd >/dev/null &&
    command -v qemu-system-x86_64 >/dev/null && [ -x /sbin/zfs ]
}

# What each start of a command on ZFS opens.
files_of_tools() {
  local tools=(/sbin/zfs /sbin/zpool /bin/bash)
  printf '%s\n' "${tools[@]}" /etc/ld.so.cache
  ldd "${tools[@]}" | grep -oP '(?<= )/\S+|^\t\K/\S+(?= \()' | sort -u
}
