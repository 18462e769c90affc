# mkApps: the flake apps of one container.
#
#   name        the container's name
#   descriptor  its descriptor, a derivation or a store path
#   pkgs        a package set, for writeScript
#   nuc         the nuc package
#   prefix      the apps' names begin with it
{
  name,
  descriptor,
  pkgs,
  nuc,
  prefix ? "container",
}:
let
  app =
    command: description: arguments:
    let
      # A script and not `nuc` itself: an app is one program without arguments.
      script = pkgs.writeScript "${prefix}-${command}" ''
        #!${pkgs.runtimeShell or pkgs.stdenv.shell}
        ${arguments}
      '';
    in
    {
      name = "${prefix}-${command}";
      value = {
        type = "app";
        program = "${script}";
        meta = {
          inherit description;
        };
      };
    };
  run = command: what: ''exec ${nuc}/bin/nuc ${command} ${what} "$@"'';
  byName = command: description: app command description (run command name);
in
builtins.listToAttrs [
  (app "build" "Print the descriptor of ${name}, built with all it needs" "echo ${descriptor}")
  (app "start" "Start ${name} in the foreground" (run "start" "${descriptor}"))
  (app "switch" "Switch the running ${name} to this configuration" (run "switch" "${descriptor}"))
  (byName "stop" "Stop ${name}")
  (byName "rollback" "Switch ${name} back to the generation before")
  (byName "login" "Open a root shell in ${name}")
  (byName "link" "Link a port of ${name} to one of another container or the host machine")
  (byName "status" "Show ${name} in detail")
  (byName "logs" "Show the journal of ${name}")
]
