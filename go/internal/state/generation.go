package state

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/gcroot"
)

const generations = "generations"

// Generation is a descriptor that was once started or switched to.
type Generation struct {
	Number int
	Path   string
	Time   time.Time
}

// Generations lists the recorded generations, oldest first.
func (c Container) Generations() ([]Generation, error) {
	entries, err := os.ReadDir(filepath.Join(c.State, generations))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	var list []Generation
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil || n < 1 || e.Name() != strconv.Itoa(n)+".json" {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		list = append(list, Generation{Number: n, Path: filepath.Join(c.State, generations, e.Name()), Time: info.ModTime()})
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Number < list[j].Number })
	return list, nil
}

// Current returns the number and the descriptor of the current generation;
// number 0 and no error where none was ever recorded. With an error comes the
// number, if that is known.
func (c Container) Current() (int, []byte, error) {
	target, err := os.Readlink(filepath.Join(c.State, "current"))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return 0, nil, nil
		}
		return 0, nil, fmt.Errorf("state folder: %s should be a link to a generation: %w", filepath.Join(c.State, "current"), err)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(target), ".json"))
	if err != nil {
		return 0, nil, fmt.Errorf("state folder %s: current points to %q, not to a generation: point it to one in %s", c.State, target, generations)
	}
	data, err := os.ReadFile(filepath.Join(c.State, generations, strconv.Itoa(n)+".json"))
	if err != nil {
		return n, nil, fmt.Errorf("state folder: generation %d is lost: %w", n, err)
	}
	return n, data, nil
}

// Record makes a descriptor the current generation, a new one if it differs
// from the current. Each step is a rename, so a crash leaves the old one.
func (c Container) Record(descriptor []byte) (int, error) {
	n, err := c.Append(descriptor)
	if err != nil {
		return 0, err
	}
	return n, c.SetCurrent(n)
}

// Append keeps a descriptor as the newest generation without making it the
// current one, and returns its number: the current one's, if it is the same.
func (c Container) Append(descriptor []byte) (int, error) {
	n, old, err := c.Current()
	if err == nil && n > 0 && bytes.Equal(old, descriptor) {
		return n, nil
	}
	c.dropUnfinished()
	list, err := c.Generations()
	if err != nil {
		return 0, err
	}
	next := 1
	if len(list) > 0 {
		next = list[len(list)-1].Number + 1
	}
	dir := filepath.Join(c.State, generations)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, fmt.Errorf("state folder: %w", err)
	}
	if err := keepFile(filepath.Join(dir, strconv.Itoa(next)+".json"), descriptor); err != nil {
		// A first start that came to nothing leaves no container.
		_ = os.Remove(dir)
		_ = os.Remove(c.State)
		return 0, fmt.Errorf("recording generation %d: %w", next, err)
	}
	return next, nil
}

// Read returns the descriptor of a generation.
func (c Container) Read(n int) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(c.State, generations, strconv.Itoa(n)+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("container %s: has no generation %d: see `nuc generations %s`", c.Name, n, c.Name)
	}
	return data, err
}

// Drop removes a generation that is not the current one, and what keeps its
// store paths alive.
func (c Container) Drop(n int) error {
	if err := gcroot.Remove(c.Root(n)); err != nil {
		return err
	}
	_ = os.Remove(c.baseFile(n))
	return os.Remove(filepath.Join(c.State, generations, strconv.Itoa(n)+".json"))
}

// Of tells whether a generation was made of a descriptor by changes of limits
// alone (nuc update), one after the other.
func (c Container) Of(n int, descriptor []byte) bool {
	base, err := os.ReadFile(c.baseFile(n))
	return err == nil && string(base) == digest(descriptor)
}

// SetBase notes that a generation was made of the current one by a change of
// limits.
func (c Container) SetBase(n int) error {
	current, source, err := c.Current()
	if err != nil {
		return err
	}
	base, err := os.ReadFile(c.baseFile(current))
	if err != nil {
		base = []byte(digest(source))
	}
	return writeFile(c.baseFile(n), base)
}

func (c Container) baseFile(n int) string {
	return filepath.Join(c.State, generations, strconv.Itoa(n)+".base")
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Root is the link that keeps a generation's store paths alive; package gcroot
// makes it.
func (c Container) Root(n int) string {
	return filepath.Join(c.State, generations, strconv.Itoa(n)+".root")
}

// SetOrigin keeps where the container's descriptors come from, as JSON.
func (c Container) SetOrigin(origin []byte) error {
	return writeFile(filepath.Join(c.State, "origin.json"), origin)
}

// Origin returns what SetOrigin kept, or nil.
func (c Container) Origin() []byte {
	data, err := os.ReadFile(filepath.Join(c.State, "origin.json"))
	if err != nil {
		return nil
	}
	return data
}

// SetCurrent points the container to a recorded generation.
func (c Container) SetCurrent(n int) error {
	link := filepath.Join(c.State, "current")
	tmp := link + ".new"
	_ = os.Remove(tmp)
	_ = unix.Rmdir(link) // a folder can't be replaced by a rename
	if err := os.Symlink(filepath.Join(generations, strconv.Itoa(n)+".json"), tmp); err != nil {
		return err
	}
	return os.Rename(tmp, link)
}

// Exit is how a container's last run ended.
type Exit struct {
	Time time.Time `json:"time"`
	// Clean is true after a poweroff that nobody forced.
	Clean bool `json:"clean"`
	// Asked is true where somebody had it killed.
	Asked  bool   `json:"asked,omitempty"`
	Reason string `json:"reason"`
}

// RecordExit remembers how the run ended, for ps and status.
func (c Container) RecordExit(e Exit) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.State, "exit.json"), append(data, '\n'))
}

// RecordFailure remembers why the container could not be started, also where
// that was the first time.
func (c Container) RecordFailure(reason string) error {
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return c.RecordExit(Exit{Time: time.Now(), Reason: reason})
}

// ForgetExit is called at a start: a run that is killed leaves no record, and
// must not show an older one's.
func (c Container) ForgetExit() { _ = os.Remove(filepath.Join(c.State, "exit.json")) }

// LastExit returns how the last run ended, or nil where that is not known.
func (c Container) LastExit() *Exit {
	data, err := os.ReadFile(filepath.Join(c.State, "exit.json"))
	if err != nil {
		return nil
	}
	var e Exit
	if json.Unmarshal(data, &e) != nil {
		return &Exit{Reason: "how it ended is not known, as exit.json in its state folder is damaged"}
	}
	return &e
}

// UUID returns the container's id, the same at each start: 32 hexadecimal
// digits, as in machine-id(5), a version 4 UUID.
func (c Container) UUID() (string, error) {
	path := filepath.Join(c.State, "uuid")
	if data, err := os.ReadFile(path); err == nil {
		id := strings.TrimSpace(string(data))
		if raw, err := hex.DecodeString(id); err == nil && len(raw) == 16 {
			return id, nil
		}
	}
	var raw [16]byte
	rand.Read(raw[:])
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	id := hex.EncodeToString(raw[:])
	return id, keepFile(path, []byte(id+"\n"))
}

// writeFile replaces a file whole, or not at all. A power cut may leave it empty.
func writeFile(path string, data []byte) error { return replaceFile(path, data, nil) }

// keepFile is writeFile for what must survive a power cut: a file system may
// have written a new name long before the content (ext4(5), delalloc).
func keepFile(path string, data []byte) error { return replaceFile(path, data, (*os.File).Sync) }

// unfinished is how the names of files begin that are to replace others.
const unfinished = ".new-"

// dropUnfinished removes what a power cut has left of such files.
func (c Container) dropUnfinished() {
	for _, dir := range []string{c.State, filepath.Join(c.State, generations)} {
		left, _ := filepath.Glob(filepath.Join(dir, unfinished+"*"))
		for _, path := range left {
			_ = os.Remove(path)
		}
	}
}

func replaceFile(path string, data []byte, settle func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), unfinished+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil && settle != nil {
		err = settle(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	_ = unix.Rmdir(path) // a folder can't be replaced by a rename
	return os.Rename(f.Name(), path)
}
