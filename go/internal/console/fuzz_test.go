package console

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzOutput: what a container prints is kept to its end, and shown without what
// commands a terminal, however it comes in pieces.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07text\r\r\n"), uint16(3), uint8(2))
	f.Add([]byte("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\x1bP1$r\x1b\\"), uint16(1), uint8(10))
	f.Add(bytes.Repeat([]byte("line\n"), tailSize/4), uint16(60000), uint8(1))
	f.Fuzz(func(t *testing.T, output []byte, piece uint16, n uint8) {
		var log Log
		var text, whole bytes.Buffer
		lines := Lines{W: &text}
		log.SetOutput(&lines)
		for left := output; len(left) > 0; {
			next := left[:min(len(left), int(piece)+1)]
			if written, err := log.Write(next); written != len(next) || err != nil {
				t.Fatalf("%d, %v", written, err)
			}
			left = left[len(next):]
		}
		if _, err := (&Lines{W: &whole}).Write(output); err != nil || !bytes.Equal(whole.Bytes(), text.Bytes()) {
			t.Errorf("in pieces %q, in one %q, %v", text.Bytes(), whole.Bytes(), err)
		}
		tail := log.Tail()
		if !bytes.HasSuffix(output, tail) || len(tail) > tailSize || len(output) <= tailSize && len(tail) != len(output) {
			t.Errorf("the end of %d bytes is %d: %.100q", len(output), len(tail), tail)
		}
		plain := Plain(output, int(n))
		if len(plain) > int(n) {
			t.Errorf("%d lines, %d were asked for", len(plain), n)
		}
		for _, line := range plain {
			if strings.TrimSpace(line) == "" || strings.Contains(line, "\n") || strings.Contains(line, "\x1b[") && sequences().MatchString(line) {
				t.Errorf("line %q", line)
			}
		}
	})
}
