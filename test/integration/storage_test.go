package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestRestartKeepsData(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		path := h.Up("web", tree, nil)
		h.Must("exec", "web", "sh", "-c", "echo kept >/var/lib/data; rm /etc/debian_version")
		check := func(after string) {
			if got := h.Must("exec", "web", "cat", "/var/lib/data"); got != "kept" {
				h.Errorf("after %s the file says %q", after, got)
			}
			if r := h.Exec("web", "test", "!", "-e", "/etc/debian_version"); r.Code != 0 {
				h.Errorf("after %s a removed file is back", after)
			}
		}
		h.Must("restart", "web")
		check("restart")
		id := h.Must("exec", "web", "cat", "/etc/machine-id")
		h.Must("stop", "web")
		h.Must("up", "web")
		check("stop and up by name")
		if got := h.Must("exec", "web", "cat", "/etc/machine-id"); got != id || len(id) != 32 {
			h.Errorf("machine-id was %q, is %q: want the same 32 digits", id, got)
		}
		h.Must("kill", "web")
		if status := h.Status("web"); status != "stopped" {
			h.Errorf("after kill, web is %q, want stopped, as that was asked for", status)
		}
		h.Must("up", path)
		check("kill and up by file")
	})
}

func TestTreeNeverWritten(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		folder := h.Tree(tree)
		before := inventory(h, folder)
		h.Up("web", tree, nil)
		h.Must("exec", "web", "sh", "-c", `set -e
			rm /etc/debian_version; echo changed >>/etc/os-release; touch /new /etc/new
			chmod 700 /usr/games; mv /etc/nginx /etc/nginx.old; chown 33:33 /srv; mkdir /usr/new`)
		h.Must("stop", "web")
		if diff := cmp.Diff(before, inventory(h, folder)); diff != "" {
			h.Errorf("the tree was written (-before +after):\n%s", diff)
		}
	})
}

// inventory describes each file of a folder by what a write would change.
func inventory(h *harness.H, folder string) map[string]string {
	h.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if os.IsPermission(err) && os.Geteuid() != 0 {
			return filepath.SkipDir // a folder of a subordinate id's own
		}
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		files[strings.TrimPrefix(path, folder)] = fmt.Sprintf("%o %d:%d %d bytes, written %d.%09d, changed %d.%09d",
			st.Mode, st.Uid, st.Gid, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	if len(files) < 1000 {
		h.Fatalf("%s holds only %d files", folder, len(files))
	}
	return files
}

func TestEphemeralForgets(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, ephemeral)
		h.Must("exec", "web", "touch", "/var/lib/data")
		h.Must("restart", "web")
		if r := h.Exec("web", "test", "!", "-e", "/var/lib/data"); r.Code != 0 {
			h.Errorf("an ephemeral root kept a file over a restart\n%s", r)
		}
	})
}

func TestEphemeralSize(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, func(d map[string]any) {
			ephemeral(d)
			harness.Section(d, "root")["sizeBytes"] = 64 << 20
		})
		if r := h.Exec("web", "dd", "if=/dev/zero", "of=/var/lib/big", "bs=1M", "count=65"); r.Code == 0 {
			h.Errorf("65 MiB fit into a root of 64 MiB\n%s", r)
		}
	})
}

func TestRemove(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		h.Must("exec", "web", "sh", "-c", `install -d -o postgres -m 700 /var/lib/own && touch /var/lib/own/file && chown postgres /var/lib/own/file`)
		if r := h.Nuc("rm", "--state", "--yes", "web"); r.Code == 0 || !strings.Contains(r.Stderr, "web") {
			h.Errorf("rm of a running container: want a failure that names it\n%s", r)
		}
		h.Must("exec", "web", "true")
		h.Must("stop", "web")

		p, terminal := h.StartTerminal(24, 80, "rm", "--state", "web")
		p.WaitOutput("web", patience)
		terminal.Type("n\n")
		p.Wait(patience)
		if status := h.Status("web"); status != "stopped" {
			h.Errorf("after rm was answered with n, web is %q", status)
		}

		h.Must("rm", "--state", "--yes", "web")
		if status := h.Status("web"); status != "" {
			h.Errorf("after rm, ps -a lists web as %q", status)
		}
		if entries, err := os.ReadDir(filepath.Join(h.State, "nuc")); err == nil && len(entries) > 0 {
			h.Errorf("after rm --state, the state folder still holds %s", entries[0].Name())
		}
	})
}

// Only the host's root can set the immutable flag, and undo it.
func TestRemoveImmutable(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		h.Must("exec", "web", "mkdir", "-p", "/var/immutable")
		h.Must("stop", "web")
		var found string
		_ = filepath.WalkDir(h.State, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.Name() == "immutable" {
				found = path
			}
			return nil
		})
		if found == "" {
			h.Fatal("the state folder holds no /var/immutable")
		}
		if r := h.Host("chattr", "+i", found); r.Code != 0 {
			h.Skipf("this file system has no immutable flag: %s", r.Stderr)
		}
		h.Cleanup(func() {
			if _, err := os.Lstat(found); err == nil {
				h.Host("chattr", "-i", found)
			}
		})
		h.Must("rm", "--state", "--yes", "web")
		if _, err := os.Lstat(found); !os.IsNotExist(err) {
			h.Errorf("%s is still there", found)
		}
	}, harness.AsRoot())
}
