# As much of nixpkgs' lib as declaring options takes, so that docs/options.md
# can be made and checked where there is no nixpkgs. Descriptions of types are
# worded as lib/types.nix does.
let
  type = description: {
    inherit description;
    getSubOptions = _: { };
  };
  within = t: t.inner or t.description;
  over = description: t: type description // { inherit (t) getSubOptions; };
  # In brackets within an alternative.
  composite =
    description: t:
    over description t
    // {
      alternative = "(${description})";
    };
  quoted = v: builtins.toJSON v;
in
rec {
  types = {
    bool = type "boolean";
    int = type "signed integer";
    str = type "string";
    path = type "absolute path";
    package = type "package";
    deferredModule = type "module";
    raw = type "raw value";
    enum =
      values:
      type (
        if builtins.length values == 1 then
          "value ${quoted (builtins.head values)} (singular enum)"
        else
          "one of ${builtins.concatStringsSep ", " (map quoted values)}"
      );
    nullOr = t: over "null or ${t.alternative or (within t)}" t;
    listOf = t: composite "list of ${within t}" t;
    attrsOf = t: composite "attribute set of ${within t}" t;
    submodule = module: {
      description = "submodule";
      inner = "(submodule)";
      getSubOptions = _: module.options;
    };
  };

  mkOption = option: option // { _type = "option"; };
  mkEnableOption =
    name:
    mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = "Whether to enable ${name}.";
    };
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
}
