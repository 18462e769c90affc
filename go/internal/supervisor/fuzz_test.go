package supervisor

import (
	"encoding/json"
	"io"
	"os"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/test/jail"
)

// answerTime is how long a supervisor may take for an answer, on a machine that
// has better to do.
const answerTime = 30 * time.Second

// FuzzControl speaks to a live control socket: whatever a client sends, the
// supervisor answers or hangs up, holds nothing of it afterwards, and goes on
// answering others. It is in a jail, as an update opens ports.
func FuzzControl(f *testing.F) {
	for _, c := range []Command{
		op(OpStatus), op(OpWait), op(OpFollow), op(OpOutlast), op(OpConsole), op(OpUse), op(OpLeases), op("none"),
		{Request: keeper.Request{Op: OpLease}},
		{Request: keeper.Request{Op: OpLease}, Lease: &LeaseOrder{KeepSeconds: -1, Keep: true}},
		{Request: keeper.Request{Op: OpUpdate}, Descriptor: []byte(`{"version":1,"name":"web","system":{"init":"/init"},"network":{"ports":[{"host":0,"container":80}]}}`)},
		{Request: keeper.Request{Op: OpUpdate}, Descriptor: []byte(`{"version":1,"name":"db","system":{"init":"/init"}}`), Generation: -1, StorePath: "/nix/store/x"},
		{Request: keeper.Request{Op: keeper.OpExec, Exec: &keeper.Exec{Arguments: []string{"true"}}}},
		{Request: keeper.Request{Op: keeper.OpSockets, Sockets: &keeper.Sockets{Network: "tcp4", Count: 1}}, Passive: true},
		{Request: keeper.Request{Op: keeper.OpDial, Dial: &keeper.Dial{Path: "/x"}}},
	} {
		data, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		for _, files := range []uint8{0, 3, 64} {
			f.Add(data, files)
		}
	}
	f.Add([]byte{1}, uint8(1))
	f.Add([]byte("[]"), uint8(65))
	jail.Seeds(f)
	var s *Supervisor
	if jail.Inside() {
		s = idle(f)
		serve(f, s)
	}
	f.Fuzz(func(t *testing.T, data []byte, files uint8) {
		if !jail.Inside() {
			return
		}
		var c Command
		if err := json.Unmarshal(data, &c); err == nil && c.Op == OpStop {
			return // which is answered by the end
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		along := make([]*os.File, min(files, 253)) // the kernel takes no more
		for i := range along {
			along[i] = null
		}
		before := openFiles(t)
		conn, err := Connect(s.o.Container)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Net().SetDeadline(time.Now().Add(answerTime))
		if err := conn.SendRaw(data, along...); err != nil {
			conn.Close()
			null.Close()
			return // larger than the kernel takes
		}
		updated := false
		for {
			m, err := conn.Receive()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("neither an answer nor the end: %v", err)
			}
			var reply keeper.Reply
			_ = m.Decode(&reply)
			m.Close()
			updated = c.Op == OpUpdate && reply.Kind == keeper.Started
			if c.Op == OpWait || c.Op == OpFollow || c.Op == OpUse {
				break // they go on until the client leaves
			}
		}
		conn.Close()
		if st, err := Query(s.o.Container); err != nil || st.Name != "web" {
			t.Fatalf("%+v, %v", st, err)
		}
		after := openFiles(t)
		for deadline := time.Now().Add(answerTime); !updated && after > before && time.Now().Before(deadline); after = openFiles(t) {
			time.Sleep(time.Millisecond)
		}
		null.Close()
		if !updated && after > before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
