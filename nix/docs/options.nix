# docs/options.md from the modules' declarations.
{
  lib ? import ./lib.nix,
}:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    isList
    typeOf
    ;

  # Only the declarations are read: what a default refers to is not evaluated,
  # since it has a defaultText.
  optionsOf =
    file:
    ((import file) {
      inherit lib;
      config = { };
      options = { };
      pkgs = { };
    }).options;

  simple =
    v: if isList v then builtins.length v <= 1 && builtins.all simple v else typeOf v != "set";
  nix =
    indent: v:
    let
      deeper = "${indent}  ";
      block =
        open: close: lines:
        "${open}\n${concatStringsSep "\n" (map (line: "${deeper}${line}") lines)}\n${indent}${close}";
    in
    if v ? _type && (v._type == "literalExpression" || v._type == "literalExample") then
      v.text
    else if v == [ ] then
      "[ ]"
    else if v == { } then
      "{ }"
    else if isList v && simple v then
      "[ ${concatStringsSep " " (map (nix deeper) v)} ]"
    else if isList v then
      block "[" "]" (map (nix deeper) v)
    else if typeOf v == "set" then
      block "{" "}" (map (name: "${name} = ${nix deeper v.${name}};") (attrNames v))
    else if v == null then
      "null"
    else
      builtins.toJSON v;
  value =
    label: v:
    let
      text = nix "" v;
    in
    if builtins.match "[^\n]*" text != null then
      "- ${label}: `${text}`"
    else
      "- ${label}:\n\n  ```nix\n  ${builtins.replaceStrings [ "\n" ] [ "\n  " ] text}\n  ```";

  flatten =
    path: options:
    concatMap (
      name:
      let
        option = options.${name};
        here = path ++ [ name ];
        isSet = builtins.match "attribute set of.*" option.type.description != null;
        inside = removeAttrs (option.type.getSubOptions here) [ "_module" ];
      in
      if (option._type or null) != "option" then
        flatten here option
      else if option.internal or false then
        [ ]
      else
        [ (entry here option) ] ++ flatten (here ++ [ (if isSet then "<name>" else "*") ]) inside
    ) (attrNames options);

  entry =
    path: option:
    concatStringsSep "\n" (
      [
        "### `${concatStringsSep "." path}`"
        ""
        option.description
        ""
        "- type: ${option.type.description}"
      ]
      ++ (
        if option ? defaultText then
          [ (value "default" option.defaultText) ]
        else if option ? default then
          [ (value "default" option.default) ]
        else
          [ ]
      )
      ++ (if option ? example then [ (value "example" option.example) ] else [ ])
    );

  section = title: text: file: ''
    ## ${title}

    ${text}

    ${concatStringsSep "\n\n" (flatten [ ] (optionsOf file))}
  '';
in
''
  <!-- Made by nix/docs/generate from the modules; don't edit. -->

  # Options

  [nix.md](nix.md) shows how to use them, [descriptor.md](descriptor.md) what
  becomes of them.

  ${section "Container"
    "Options of a container's NixOS configuration (`nixosModules.container`, which `mkContainer` adds)."
    ../modules/container/options.nix
  }
  ${section "NixOS host" "Options of a NixOS machine that runs containers (`nixosModules.host`)."
    ../modules/host/nixos.nix
  }
  ${section "home-manager" "Options of home-manager (`homeModules.default`)."
    ../modules/host/home-manager.nix
  }''
