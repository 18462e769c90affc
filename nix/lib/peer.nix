# The loopback address that another container's name stands for in a
# container's /etc/hosts, as the launcher makes it of the name: 127.64.0.0 to
# 127.127.255.255. go/internal/descriptor/peer.go is its counterpart.
name:
let
  hash = builtins.hashString "sha256" name;
  byte = i: (builtins.fromTOML "byte = 0x${builtins.substring (2 * i) 2 hash}").byte;
in
"127.${toString (64 + builtins.bitAnd (byte 0) 63)}.${toString (byte 1)}.${toString (byte 2)}"
