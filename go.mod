module github.com/nix-user-containers/nuc

go 1.24

