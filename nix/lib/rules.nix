# Rules for strings, by the names that docs/descriptor.schema.json gives them.
# Each takes a string and returns what was expected, or null if it is good.
let
  inherit (builtins)
    elem
    filter
    isString
    length
    match
    split
    stringLength
    ;

  matches = pattern: s: match pattern s != null;
  unless = good: expected: if good then null else expected;
  # The launcher takes the kernel's PATH_MAX without its NUL (path_resolution(7)).
  isPath =
    s:
    matches "/|(/[^/[:cntrl:]]+)+" s
    && !matches "(.*/)?[.]{1,2}(/.*)?" s
    && stringLength s <= 4095;
  absolute = s: if matches "/.*" s then "" else ": begin it with /";
  below = folder: s: s == folder || matches "${folder}/.*" s;

  octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  ipv4 = "${octet}(\\.${octet}){3}";
  parts = separator: s: filter isString (split separator s);
  # Groups of one side of "::"; an IPv4 address at the end counts for two.
  groups =
    s:
    if s == "" then
      [ ]
    else
      builtins.concatMap (
        g:
        if matches ipv4 g then
          [
            true
            true
          ]
        else
          [ (matches "[0-9a-fA-F]{1,4}" g) ]
      ) (parts ":" s);
  isIPv6 =
    s:
    let
      sides = parts "::" s;
      all = builtins.concatMap groups sides;
      # IPv4 can only stand last.
      shape = matches "[0-9a-fA-F:]*(:${ipv4})?" s;
    in
    shape
    && builtins.all (good: good) all
    && (if length sides == 2 then length all <= 7 else length sides == 1 && length all == 8);

  # As in hosts(5): labels, the last of them no number.
  label = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?";
  isHostName =
    s:
    matches "${label}(\\.${label})*" s
    && !matches "(.*\\.)?[0-9]+" s
    && stringLength s <= 253
    && s != "localhost";

  # Whether the bits beyond the prefix are zero.
  isNetwork =
    address: bits:
    let
      number = builtins.foldl' (n: part: n * 256 + builtins.fromJSON part) 0 (parts "\\." address);
      size = builtins.foldl' (n: _: n * 2) 1 (builtins.genList (i: i) (32 - bits));
    in
    builtins.bitAnd number (size - 1) == 0;

  # Those of signal(7) that init can act upon.
  signals =
    "HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|USR1|SEGV|USR2|PIPE|ALRM|TERM|CHLD|CONT"
    + "|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|PWR|SYS";
  unitTypes = "service|socket|device|mount|automount|swap|target|path|timer|slice|scope";
in
rec {
  text = _: null;

  name =
    s:
    unless (matches "[a-z0-9][a-z0-9-]{0,62}" s)
      "a name of at most 63 lower-case letters, digits and dashes, the first no dash";

  path = s: unless (isPath s) "an absolute path without //, . and ..${absolute s}";

  file =
    s:
    unless (isPath s && s != "/") "an absolute path of a program inside the root${absolute s}";

  storePath =
    s:
    unless (matches "/nix/store/[0-9A-Za-z+_?=-][0-9A-Za-z+._?=-]*" s)
      "a store path, /nix/store/ and one name";

  device =
    s:
    if !(isPath s && matches "/dev/.+" s) then
      "a device below /dev/"
    else
      unless (!builtins.any (own: below "/dev/${own}" s) [
        "console"
        "kmsg"
        "mqueue"
        "ptmx"
        "pts"
        "shm"
      ]) "a device that isn't the launcher's (console, kmsg, mqueue, ptmx, pts, shm)";

  target =
    s:
    if !isPath s then
      path s
    else
      unless
        (
          !elem s [
            "/"
            "/run"
          ]
          && !builtins.any (own: below own s) [
            "/proc"
            "/sys"
            "/dev"
            "/run/host"
          ]
        )
        "an absolute path in the container that isn't the launcher's (/, /run, /run/host, /proc, /sys, /dev)";

  signal =
    s:
    unless (matches "SIG(${signals}|RTMIN(\\+([0-9]|[12][0-9]|30))?)" s)
      "a signal that init can act upon, such as SIGTERM or SIGRTMIN+3";

  address = s: unless (matches ipv4 s || isIPv6 s) "an IPv4 or IPv6 address";

  hostName = s: unless (isHostName s) "a host's name in lower case, not localhost";

  # An address or a network, with or without a port, or a name with one. That
  # an IPv6 network has no further bits is left to the launcher.
  allow =
    s:
    let
      # One colon, or brackets, set the port apart.
      bracketed = match "\\[([^]]*:[^]]*)]:(.*)" s;
      plain = match "([^:]*):([^:]*)" s;
      cut =
        if bracketed != null then
          bracketed
        else if plain != null then
          plain
        else
          [
            s
            null
          ];
      target = builtins.head cut;
      port = builtins.elemAt cut 1;
      number = match "([1-9][0-9]{0,4})(/(tcp|udp))?" port;
      goodPort = port == null || number != null && builtins.fromJSON (builtins.head number) <= 65535;
      # ADDRESS or ADDRESS/BITS
      pieces = parts "/" target;
      address = builtins.head pieces;
      bits = if length pieces == 2 then builtins.elemAt pieces 1 else null;
      goodBits =
        most:
        length pieces == 1
        || length pieces == 2 && matches "0|[1-9][0-9]{0,2}" bits && builtins.fromJSON bits <= most;
      isV4 =
        matches ipv4 address
        && goodBits 32
        && (bits == null || isNetwork address (builtins.fromJSON bits));
      isV6 =
        isIPv6 address
        && goodBits 128
        && !matches ".*[.].*" address
        && (bracketed != null || port == null);
      loopback = matches "127[.].*|::1|localhost" address;
      expected = "an address or a network (10.0.0.0/8, 10.0.0.0/8:443), or a name with a port (example.org:443)";
    in
    if loopback then
      "${expected}: the container has its own loopback; network.hostLoopback is for the host's"
    else if port == null && isHostName s && !isV4 then
      "${expected}: a name needs a port: ${s}:443"
    else
      unless (goodPort && (isV4 || isV6 || port != null && isHostName target)) expected;

  unit =
    s:
    let
      remedy = if matches "[0-9A-Za-z:_@-]+" s then ": write ${s}.service" else "";
    in
    unless (
      matches "[0-9A-Za-z:_.\\@-]+\\.(${unitTypes})" s && stringLength s <= 255
    ) "a unit's name with its suffix${remedy}";

  # The names that systemd takes (credential_name_valid in its
  # src/shared/creds-util.c): printable ASCII.
  credential =
    s:
    unless (
      matches "[ -.0-9;-~]+" s && !matches "[.]{1,2}" s && stringLength s <= 255
    ) "a name of at most 255 printable ASCII characters without / and :";

  program =
    s:
    unless (
      if matches ".*/.*" s then isPath s && s != "/" else s != "" && stringLength s <= 255
    ) "a program of the host, an absolute path or a name to be found in PATH";

  exported =
    s:
    unless (
      matches "[A-Za-z_][0-9A-Za-z_]*" s && stringLength s <= 255
    ) "the name of a variable: letters, digits and _, the first no digit";

  variable =
    s:
    if
      elem s [
        "container"
        "container_uuid"
        "NOTIFY_SOCKET"
        "CREDENTIALS_DIRECTORY"
      ]
    then
      "a variable that the launcher doesn't set: remove it"
    else
      unless (matches "[^=]+" s) "the name of a variable for init, not empty and without =";
}
