# Containers of a development shell, with builtins only.
#
#   shellHook containers
#   shellHook { containers = …; wait = …; keepAlive = …; keepSeconds = …; nuc = …; }
#
# is text for a shell's `shellHook`, of mkShell or any other derivation;
#
#   mkShell { containers = …; packages = …; … }
#
# is pkgs.mkShell with it, and takes what that takes besides.
#
#   containers   a list, or a set, of what mkContainer gives
#   wait         return when the containers are ready, not at once
#   keepAlive    leave the containers running when the last shell has ended
#   keepSeconds  how long the containers run on after that
#   nuc          the nuc package; that of the first container without it
#   pkgs         a package set (mkShell); that of the first container without it
let
  inherit (builtins)
    all
    attrNames
    attrValues
    concatStringsSep
    filter
    foldl'
    head
    intersectAttrs
    isAttrs
    isInt
    isList
    isString
    match
    replaceStrings
    ;

  quote =
    text:
    if match "[0-9A-Za-z/._+:=-]+" text != null then
      text
    else
      "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
  settings = {
    wait = false;
    keepAlive = false;
    keepSeconds = null;
    nuc = null;
  };
  programs = "/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin";
  names = attrs: concatStringsSep ", " (attrNames attrs);

  # listOf checks what the caller calls containers.
  listOf =
    what: containers:
    let
      list = if isList containers then containers else attrValues containers;
    in
    if !(isList containers || isAttrs containers) || !all (c: isAttrs c && c ? descriptor) list then
      throw "nuc: ${what}: containers: expected a list, or a set, of what mkContainer gives"
    else if list == [ ] then
      throw "nuc: ${what}: containers: there are none: name at least one"
    else
      list;

  # environment joins what the containers say of clients: a variable has one value.
  environment =
    what: containers:
    foldl' (
      known: container:
      let
        env = container.env or { };
        differ = filter (name: known.${name} != env.${name}) (attrNames (intersectAttrs env known));
        bad = filter (name: match "[A-Za-z_][A-Za-z0-9_]*" name == null) (attrNames env);
        notText = filter (name: !isString env.${name}) (attrNames env);
        of = name: "nuc.env.${name} of ${container.name or "a container"}";
      in
      if bad != [ ] then
        throw "nuc: ${what}: ${of (head bad)}: expected a variable's name: letters, digits and _"
      else if notText != [ ] then
        throw "nuc: ${what}: ${of (head notText)}: expected a string"
      else if differ != [ ] then
        throw "nuc: ${what}: ${of (head differ)}: another container gives it another value: keep it in one of them only"
      else
        known // env
    ) { } containers;

  hook =
    what: given: own:
    let
      list = listOf what given.containers;
      o = settings // intersectAttrs settings given;
      nuc = if o.nuc != null then o.nuc else (head list).nuc or (throw "nuc: ${what}: nuc: give it the nuc package");
      env = removeAttrs (environment what list) own;
      keep =
        if o.keepSeconds == null then
          ""
        else if isInt o.keepSeconds && o.keepSeconds >= 0 then
          " --keep ${toString o.keepSeconds}s"
        else
          throw "nuc: ${what}: keepSeconds: expected an integer of at least 0";
      flags = (if o.wait then "" else " --detach") + (if o.keepAlive then "" else " --lease shell${keep}");
    in
    if o.keepAlive && o.keepSeconds != null then
      throw "nuc: ${what}: keepSeconds is for containers that stop with the last shell: leave keepAlive or keepSeconds out"
    else
      concatStringsSep "" (
        map (name: "export ${name}=${quote env.${name}}\n") (attrNames env)
        # Standard output is that of a command that the shell may be entered for,
        # and what fails must not end an .envrc. A pure shell has neither HOME nor
        # newuidmap on its PATH.
        ++ [ "HOME=\${HOME-~} PATH=$PATH:${programs} ${nuc}/bin/nuc up${flags}${concatStringsSep "" (map (c: " ${quote "${c.descriptor}"}") list)} </dev/null >&2 || :\n" ]
      );
in
{
  shellHook =
    containers:
    let
      given = if isAttrs containers && containers ? containers then containers else { inherit containers; };
      unknown = removeAttrs given ([ "containers" ] ++ attrNames settings);
    in
    if unknown != { } then
      throw "nuc: shellHook: ${names unknown}: not known: it takes containers, ${names settings}"
    else
      hook "shellHook" given [ ];

  mkShell =
    given:
    let
      pkgs = given.pkgs or (head (listOf "mkShell" given.containers)).pkgs;
      nuc = given.nuc or (head (listOf "mkShell" given.containers)).nuc;
      # What the shell sets itself is not the containers' to say.
      own = attrNames given ++ attrNames (given.env or { });
    in
    pkgs.mkShell (
      removeAttrs given (
        [
          "containers"
          "packages"
          "pkgs"
        ]
        ++ attrNames settings
      )
      // {
        # mkShell knows packages since 21.05 only, and does the same with them.
        nativeBuildInputs = (given.packages or [ ]) ++ [ nuc ] ++ (given.nativeBuildInputs or [ ]);
        shellHook = hook "mkShell" given own + (given.shellHook or "");
      }
    );
}
