// Package starter starts what a supervisor has to start while its container
// runs: keepers, the way out, links, Nix.
//
// A supervisor confines itself once its container is up (package landlock), and
// what a confined process starts is confined as it is: newuidmap would get no
// rights, pasta could not sandbox itself, a keeper could mount nothing. So shortly
// before, it starts a process that is not confined, does nothing by itself and
// waits: the starter. Until then it starts things itself; a Client does either.
//
// The starter makes all command lines itself, of what it was told at its birth
// (Order) and a few words of each request. It listens to nobody but the supervisor
// that made it, and reads nothing but these messages.
//
// The whole protocol. All of it are JSON messages over SOCK_SEQPACKET, of 8 MiB at
// most, with descriptors in brackets. A starter is born with its end of "requests"
// as descriptor 3, and the sealed image of nuc as 4. The supervisor's end of "requests" closing
// means that the supervisor is gone: the starter then ends, and what it has
// started does what it does without it: the way out dies (parent-death signal), a
// keeper sees its own connection to the supervisor end.
//
//	supervisor         requests                        starter
//	   ── Order ──────────────────────────────────────▶
//	   ◀── Reply{done} ────────────────────────────────
//	   ── Request{keeper, Keeper} [reply] ────────────▶ ─┐
//	   ── Request{driver, Driver} [reply, user, network,
//	                               output] ───────────▶  │
//	   ── Request{link, Link} [reply] ────────────────▶  │ in any order, any
//	   ── Request{unlink, Name} [reply] ──────────────▶  │ number of times
//	   ── Request{protect, Generation, Paths} [reply] ▶  │
//	   ── Request{copy, Paths} [reply] ───────────────▶  │
//	   ── Request{sockets, Sockets} [reply] ──────────▶  │
//	   ── Request{holder, Address} [reply] ───────────▶  │
//	   ── Request{renew, Name} [reply, lock?, folder?] ▶ │
//	   ── Request{furnish, UUID} [reply] ─────────────▶  │
//	   ── Request{publish, Name, Text} [reply] ───────▶  │
//	   ── Request{tidy} [reply, lock, folder] ────────▶ ─┘
//
//	on a keeper's reply:   Reply{started, pid} [pidfd, connection]
//	                       Reply{exited, status}
//	on a driver's reply:   Reply{started, pid, leaky} [pidfd]
//	                       Reply{exited, status}
//	on a link's reply:     Reply{done}, where systemd looks after its process, else
//	                       Reply{started}
//	                       Reply{exited}
//	on an unlink's, a protect's: Reply{done}
//	on a copy's:           Reply{done, paths}
//	on a sockets':         Reply{done, sockets}
//	on a holder's:         Reply{done, holder}
//	on a renew's:          Reply{done} [lock, folder, listener]
//	on a furnish's:        Reply{done} [notification socket]
//	on a publish's, a tidy's: Reply{done}
//	instead of any of them: Reply{failed, error}
package starter

import (
	"encoding/json"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// Role is the first argument of a starter. The container's name follows, for who
// looks at the list of processes.
const Role = "nuc-starter"

// Order is what a starter knows of its container.
type Order struct {
	Name    string        `json:"name"`
	Folders state.Folders `json:"folders"`
	// Nuc is the program's own path, for links.
	Nuc string `json:"nuc"`
	// IDs are the container's, which keepers get.
	IDs idmap.Map `json:"ids"`
}

// Operations of a Request.
const (
	opKeeper  = "keeper"
	opDriver  = "driver"
	opLink    = "link"
	opUnlink  = "unlink"
	opProtect = "protect"
	opCopy    = "copy"
	opSockets = "sockets"
	opHolder  = "holder"
	// For a runtime folder that was removed and made anew, which the supervisor may
	// not write to: Landlock knows the one that was there.
	opRenew   = "renew"
	opFurnish = "furnish"
	opPublish = "publish"
	opTidy    = "tidy"
)

// request asks for one thing. Its first descriptor is where the answers go.
type request struct {
	Op string `json:"op"`
	// Private: the keeper is to have a network of its own.
	Private bool           `json:"private,omitempty"`
	Driver  outbound.Order `json:"driver,omitzero"`
	// Link is package link's Spec.
	Link       json.RawMessage  `json:"link,omitempty"`
	Name       string           `json:"name,omitempty"`
	UUID       string           `json:"uuid,omitempty"`
	Text       string           `json:"text,omitempty"`
	Generation int              `json:"generation,omitempty"`
	Paths      []string         `json:"paths,omitempty"`
	Sockets    Sockets          `json:"sockets,omitzero"`
	Address    listener.Address `json:"address,omitzero"`
}

// Sockets asks which of some sockets init has open, and which of them others in
// the container.
type Sockets struct {
	Init   int      `json:"init"`
	Inodes []uint64 `json:"inodes"`
}

// Having is what Sockets found.
type Having struct {
	Init   []uint64 `json:"init,omitempty"`
	Others []uint64 `json:"others,omitempty"`
}

// Kinds of a reply.
const (
	started = "started"
	exited  = "exited"
	done    = "done"
	failed  = "failed"
)

type reply struct {
	Kind    string           `json:"kind"`
	Error   string           `json:"error,omitempty"`
	PID     int              `json:"pid,omitempty"`
	Leaky   bool             `json:"leaky,omitempty"`  // a driver
	Status  int              `json:"status,omitempty"` // as wait4(2) gives it
	Paths   []string         `json:"paths,omitempty"`
	Sockets *Having          `json:"sockets,omitempty"`
	Holder  *listener.Holder `json:"holder,omitempty"`
}
