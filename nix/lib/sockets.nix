# Ports to hand over, from what socket units listen on: units are those of
# systemd.sockets, names the ones to hand over.
#
#   ports     entries of network.ports, with the unit that each is for
#   problems  what is wrong with which unit, a list of lines
units: names:
let
  inherit (builtins)
    concatMap
    elem
    elemAt
    filter
    foldl'
    isList
    match
    ;

  unique = foldl' (seen: v: if elem v seen then seen else seen ++ [ v ]) [ ];
  # An empty assignment forgets those before it (systemd.socket(5)).
  sinceReset = foldl' (seen: v: if v == "" then [ ] else seen ++ [ v ]) [ ];
  listens =
    unit: option: directive:
    let
      said = unit.socketConfig.${directive} or [ ];
    in
    sinceReset (map toString ((unit.${option} or [ ]) ++ (if isList said then said else [ said ])));

  # What one line is: a port, or a problem. Paths, abstract sockets and the like
  # are neither: they stay the container's own.
  read =
    unit: protocol: line:
    let
      v4 = match "([0-9.]+):0*([0-9]{1,9})" line;
      v6 = match "\\[([^]]+)]:0*([0-9]{1,9})" line;
      found = if v4 != null then v4 else v6;
      port = builtins.fromJSON (elemAt found 1);
    in
    if match "[0-9]+" line != null then
      {
        problem = "${unit}.socket listens on port ${line} of every address: write 127.0.0.1:${line}, or [::]:${line} if every one is meant";
      }
    else if found == null then
      { }
    else
      {
        port = {
          inherit unit protocol;
          host = port;
          container = port;
          address = elemAt found 0;
          handOver = true;
        };
      };

  ofUnit =
    name:
    let
      unit = units.${name};
      lines = filter (line: line != { }) (
        map (read name "tcp") (listens unit "listenStreams" "ListenStream")
        ++ map (read name "udp") (listens unit "listenDatagrams" "ListenDatagram")
      );
    in
    if !(units ? ${name}) then
      [ { problem = "there is no systemd.sockets.${name}"; } ]
    else if lines == [ ] then
      [ { problem = "${name}.socket listens on no port"; } ]
    else
      lines;

  withoutSuffix =
    name:
    let
      stem = match "(.*)[.]socket" name;
    in
    if stem == null then name else elemAt stem 0;
  all = concatMap ofUnit (unique (map withoutSuffix names));
in
{
  ports = map (v: v.port) (filter (v: v ? port) all);
  problems = map (v: v.problem) (filter (v: v ? problem) all);
}
