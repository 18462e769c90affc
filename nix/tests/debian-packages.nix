# A package set for NixOS's modules where nothing can be built or fetched: each
# package with sources becomes a folder of links into a Debian tree, by a table
# of names; what needs no sources (scripts, units, configuration files) is built
# as ever. Meant for nixos-18.03, whose package set takes its stdenv from outside.
{
  # A tree of nixpkgs.
  nixpkgs,
  # The store path that debian-tree makes, as a string with its context.
  tree,
  system ? builtins.currentSystem,
  overlays ? [ ],
}:
let
  table = import ./debian-table.nix { inherit tree; };

  # Debian's tools are found where Debian has them, when something is built and
  # in the container alike: the sandbox and the container have the tree as /usr.
  generic =
    { lib, config, ... }@args:
    let
      stdenv = import (nixpkgs + "/pkgs/stdenv/generic") {
        inherit config;
        name = "stdenv-debian";
        buildPlatform = args.localSystem;
        hostPlatform = args.localSystem;
        targetPlatform = args.localSystem;
        shell = "/bin/bash";
        initialPath = [ "/usr" ];
        cc = null;
        # A source is only ever looked at for being fetched.
        fetchurlBoot = source: source;
        setupScript = builtins.toFile "setup.sh" (
          # bash 5 takes 0 characters to be what was asked for.
          builtins.replaceStrings [ "read -r -N 0 content" ] [ "read -r -d '' content" ] (
            builtins.readFile (nixpkgs + "/pkgs/stdenv/generic/setup.sh")
          )
        );
        preHook = ''
          export NIX_ENFORCE_PURITY=
          # The wrappers' libraries are named before what needs them.
          export CC="gcc -Wl,--no-as-needed"
        '';
        extraAttrs = {
          mkDerivation = mkDerivation lib plain;
          cc = {
            isGNU = true;
            isClang = false;
          };
        };
      };
      plain =
        (import (nixpkgs + "/pkgs/stdenv/generic/make-derivation.nix") {
          inherit lib config stdenv;
        }).mkDerivation;
    in
    stdenv;

  mkDerivation =
    lib: plain: attrs:
    let
      # What nixpkgs itself has the source of is no more than a script, and a
      # single command works on what was built here.
      fetched =
        !(attrs ? buildCommand) && (attrs ? srcs || (attrs ? src && !builtins.isPath attrs.src));
    in
    if fetched then backed lib plain attrs else plain attrs;

  backed =
    lib: plain: attrs:
    let
      inherit (builtins.parseDrvName attrs.name) name;
    in
    plain {
      inherit (attrs) name;
      inherit tree;
      outputs = attrs.outputs or [ "out" ];
      debian = table.packages.${name} or [ ];
      extra = table.extra.${name} or "";
      # Others read versions and the like from what would be the environment.
      passthru = removeAttrs attrs [
        "meta"
        "passthru"
      ]
      // attrs.passthru or { };
      meta = removeAttrs (attrs.meta or { }) [ "knownVulnerabilities" ];
      preferLocalBuild = true;
      buildCommand = builtins.readFile ./debian-package.sh;
    }
    // {
      overrideAttrs = f: mkDerivation lib plain (attrs // f attrs);
    };
in
import (nixpkgs + "/pkgs/top-level") {
  localSystem = { inherit system; };
  config = {
    allowBroken = true;
    allowUnfree = true;
    allowUnsupportedSystem = true;
  };
  inherit overlays;
  stdenvStages = args: [
    (_: { __raw = true; })
    (_: {
      inherit (args) config overlays;
      stdenv = generic args;
    })
  ];
}
