package project

import (
	"os"
	"testing"
)

func TestElsewhere(t *testing.T) {
	top := t.TempDir()
	for _, path := range []string{"a/flake.nix", "b/flake.nix", "c/configuration.nix", "c/web.json", "d/web.json", "moved/other"} {
		write(t, top+"/"+path, "")
	}
	if err := os.Symlink("a", top+"/link"); err != nil {
		t.Fatal(err)
	}
	flake := func(folder string) Project {
		return Project{Folder: top + "/" + folder, Flake: top + "/" + folder, Name: "web"}
	}
	classic := func(folder string) Project { return Project{Folder: top + "/" + folder} }
	file := func(path string) Project { return Project{File: top + "/" + path} }
	remote := func(ref string) Project { return Project{Flake: ref, Name: "web"} }
	for _, test := range []struct {
		kept, now Project
		want      bool
	}{
		{flake("a"), flake("a"), false},
		{flake("a"), flake("link"), false},
		{flake("a"), flake("b"), true},
		{flake("a"), classic("c"), true},
		{flake("gone"), flake("b"), false},
		{flake("moved"), flake("b"), false},
		{classic("a"), flake("b"), false},
		{classic("c"), file("c/web.json"), false},
		{classic("c"), file("d/web.json"), true},
		{file("c/web.json"), file("d/web.json"), true},
		{file("c/gone.json"), file("d/web.json"), false},
		{file("c/web.json"), file("c/other.json"), false},
		{remote("github:o/r"), remote("github:o/r/v2?dir=x"), false},
		{remote("github:o/r"), remote("github:o/fork"), true},
		{remote("git+https://h/r?ref=a"), remote("git+https://h/r?rev=1"), false},
		{remote("flake:x/main"), remote("flake:x"), false},
		{remote("github:o/r"), flake("a"), true},
		{flake("a"), remote("github:o/r"), true},
		{flake("gone"), remote("github:o/r"), false},
	} {
		if got := Elsewhere(test.kept, test.now); got != test.want {
			t.Errorf("kept %+v, now %+v: %t", test.kept, test.now, got)
		}
	}
}
