package descriptor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// MaxSize is the size in bytes beyond which a descriptor is refused.
const MaxSize = 4 << 20

// maxProblems bounds what a hostile file makes us remember and print.
const maxProblems = 1000

// ReadFile reads a regular file, and returns its content as well. Errors don't
// name the file; those of its content are Problems.
func ReadFile(path string) (*Descriptor, []byte, error) {
	// O_NONBLOCK: opening a fifo would wait for its other end (open(2)).
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		if errors.Is(err, unix.ENXIO) { // a socket, or a device without a driver
			return nil, nil, errors.New("no regular file: write the descriptor to one")
		}
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if st.IsDir() {
		return nil, nil, errors.New("is a folder: name the descriptor's file in it")
	}
	if !st.Mode().IsRegular() {
		return nil, nil, errors.New("no regular file: write the descriptor to one")
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, nil, err
	}
	d, err := Read(data)
	return d, data, err
}

// Read checks a descriptor and fills in the defaults. Its error is Problems:
// all that is wrong with the file, not only the first thing. Only where JSON
// itself is broken is there nothing more to say.
func Read(data []byte) (*Descriptor, error) {
	if len(data) > MaxSize {
		return nil, Problems{{
			Value: "more than 4 MiB", Expected: "a descriptor of at most 4 MiB",
		}}
	}
	first := json.NewDecoder(bytes.NewReader(data))
	var whole json.RawMessage
	if err := first.Decode(&whole); err != nil {
		return nil, Problems{syntaxProblem(data, err)}
	}
	r := &reader{data: data, d: &Descriptor{}, dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	r.descriptor()
	end := int(first.InputOffset())
	if rest := end + blanks(data[end:]); rest < len(data) {
		r.add(rest, Problem{Value: abbreviate(string(data[rest:min(len(data), rest+maxProblems)])), Expected: "nothing after the descriptor's closing brace"})
	}
	if problems := r.sorted(); problems != nil {
		return nil, problems
	}
	return r.d, nil
}

// syntaxProblem says where the file stops being JSON.
func syntaxProblem(data []byte, err error) Problem {
	p := Problem{Expected: "JSON"}
	offset := len(data)
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF):
		p.Value = "an empty file"
		return p
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.Remedy = "the file ends too early"
	case errors.As(err, &syntax):
		p.Remedy = syntax.Error()
		// The offset counts the bytes read, the wrong one included.
		offset = min(max(int(syntax.Offset)-1, 0), len(data))
	default:
		p.Remedy = err.Error()
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		p.Remedy = "remove the byte order mark"
	}
	line := bytes.Count(data[:offset], []byte("\n"))
	column := utf8.RuneCount(data[bytes.LastIndexByte(data[:offset], '\n')+1 : offset])
	p.Value = fmt.Sprintf("line %d, column %d", line+1, column+1)
	return p
}

// located is a problem and where in the file it belongs.
type located struct {
	Problem
	offset int
}

// reader walks over the tokens of data, which is known to begin with one
// valid JSON value, and fills d.
type reader struct {
	data []byte
	dec  *json.Decoder
	d    *Descriptor
	path string // of the value being read

	problems []located
	more     int // problems beyond maxProblems

	targets     map[string]bool
	credentials map[string]bool
	ports       listeners
	links       listeners
	// What can only be judged when the whole file is read.
	depends map[string]bool
	peers   []place
	hosts   []place
}

// token is a token and its place in the file.
type token struct {
	json.Token
	start, end int
}

// object is an object that was read: where it is, and which keys it has.
type object struct {
	start, end int
	members    []member
}

type member struct {
	key        *key
	start, end int // of the value
	bad        bool
}

// get returns a key's value, nil if it isn't there.
func (o *object) get(name string) *member {
	for i := range o.members {
		if o.members[i].key.name == name {
			return &o.members[i]
		}
	}
	return nil
}

// good tells whether the key's value, or its default, can be relied upon.
func (o *object) good(name string) bool {
	m := o.get(name)
	return m == nil || !m.bad
}

// blanks counts what may stand between tokens at the beginning of b.
func blanks(b []byte) int {
	return len(b) - len(bytes.TrimLeft(b, " \t\r\n"))
}

func (r *reader) next() token {
	start := int(r.dec.InputOffset())
	start += len(r.data[start:]) - len(bytes.TrimLeft(r.data[start:], " \t\r\n,:"))
	t, err := r.dec.Token()
	if err != nil {
		// Read has seen the whole value to be valid.
		panic("descriptor: " + err.Error())
	}
	return token{t, start, int(r.dec.InputOffset())}
}

// skip goes to the end of the value that t begins; nothing is remembered on
// the way, so depth costs nothing.
func (r *reader) skip(t token) (end int) {
	for depth := 0; ; t = r.next() {
		switch t.Token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return t.end
		}
	}
}

// show is a piece of the file for a problem.
func (r *reader) show(start, end int) string {
	// A rune takes up to six bytes when escaped; blanks are left out.
	return abbreviate(string(r.data[start:min(end, start+16*maxValue)]))
}

func (r *reader) add(offset int, p Problem) {
	if len(r.problems) == maxProblems {
		r.more++
		return
	}
	r.problems = append(r.problems, located{p, offset})
}

// refuse adds a problem with the value at the current path.
func (r *reader) refuse(start, end int, expected, remedy string) {
	r.add(start, Problem{r.path, r.show(start, end), expected, remedy})
}

// refuseMember adds a problem with a value below the current path.
func (r *reader) refuseMember(m *member, expected, remedy string) {
	r.add(m.start, Problem{join(r.path, m.key.name), r.show(m.start, m.end), expected, remedy})
}

// sorted returns the problems in the order of the file; what is missing comes
// at the end of the object that it is missing from.
func (r *reader) sorted() Problems {
	if len(r.problems) == 0 {
		return nil
	}
	sort.SliceStable(r.problems, func(i, j int) bool { return r.problems[i].offset < r.problems[j].offset })
	all := make(Problems, 0, len(r.problems)+1)
	for _, p := range r.problems {
		all = append(all, p.Problem)
	}
	if r.more > 0 {
		all = append(all, Problem{Value: fmt.Sprintf("%d more problems", r.more), Expected: "a descriptor", Remedy: "correct these first"})
	}
	return all
}

// join appends a key to a path.
func join(path, name string) string {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			continue
		}
		quoted, _ := json.Marshal(name)
		return path + "[" + abbreviate(string(quoted)) + "]"
	}
	if name == "" {
		return path + `[""]`
	}
	name = abbreviate(name)
	if path == "" {
		return name
	}
	return path + "." + name
}

func (r *reader) descriptor() {
	t := r.next()
	if t.Token != json.Delim('{') {
		r.refuse(t.start, r.skip(t), "an object", "")
		return
	}
	checkPeers(r, r.object(t, keys))
}

// object reads the members of an object whose brace was read, then fills in
// the defaults of those that aren't there.
func (r *reader) object(brace token, fields []key) *object {
	o := &object{start: brace.start, members: make([]member, 0, len(fields))}
	path := r.path
	for r.dec.More() {
		t := r.next()
		name := t.Token.(string)
		r.path = join(path, name)
		k := find(fields, name)
		if k == nil {
			r.unknown(fields, name)
			continue
		}
		if o.get(name) != nil {
			v := r.next()
			r.refuse(v.start, r.skip(v), "a key to stand once in its object", "remove one of the two")
			continue
		}
		before := len(r.problems) + r.more
		start, end := r.value(k)
		o.members = append(o.members, member{k, start, end, len(r.problems)+r.more > before})
	}
	r.path = path
	o.end = r.next().end
	for i := range fields {
		if o.get(fields[i].name) == nil {
			r.absent(&fields[i], o.end-1)
		}
	}
	return o
}

func find(fields []key, name string) *key {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func (r *reader) unknown(fields []key, name string) {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	remedy := "known are " + strings.Join(names, ", ")
	if near := Nearest(name, names); near != "" {
		remedy = "did you mean " + near + "?"
	}
	t := r.next()
	r.refuse(t.start, r.skip(t), "a known key", remedy)
}

// absent fills in the default of a key that isn't there, or refuses that.
func (r *reader) absent(k *key, offset int) {
	switch {
	case k.kind == isObject && k.begin == nil:
		path := r.path
		r.path = join(path, k.name)
		for i := range k.fields {
			r.absent(&k.fields[i], offset)
		}
		r.path = path
	case k.required:
		r.add(offset, Problem{Path: join(r.path, k.name), Value: "missing", Expected: k.expected()})
	case k.def != "" && k.at != nil:
		k.setDefault(r.d)
	}
}

func (k *key) setDefault(d *Descriptor) {
	switch p := k.at(d).(type) {
	case *int:
		*p, _ = strconv.Atoi(k.def)
	case *string:
		*p, _ = strconv.Unquote(k.def)
	case *bool:
		*p = k.def == "true"
	}
}

// value reads the value of a key.
func (r *reader) value(k *key) (start, end int) {
	t := r.next()
	switch {
	case k.kind == isObject && t.Token == json.Delim('{'):
		return t.start, r.section(t, k)
	case k.kind == isObjects && t.Token == json.Delim('['):
		return t.start, r.list(k)
	case k.kind == isStrings && t.Token == json.Delim('['):
		return t.start, r.list(k)
	case k.kind == isMap && t.Token == json.Delim('{'):
		return t.start, r.stringMap(k)
	}
	switch v := t.Token.(type) {
	case string:
		if k.kind == isString {
			if r.text(t, k, k.rule) {
				*k.at(r.d).(*string) = v
			}
			return t.start, t.end
		}
	case json.Number:
		if k.kind == isInteger {
			r.integer(t, k)
			return t.start, t.end
		}
	case bool:
		if k.kind == isBoolean {
			*k.at(r.d).(*bool) = v
			return t.start, t.end
		}
	}
	end = r.skip(t)
	remedy := ""
	if t.Token == nil {
		remedy = "leave the key out for its default"
		if k.required {
			remedy = ""
		}
	}
	r.refuse(t.start, end, k.expected(), remedy)
	return t.start, end
}

// section reads an object of keys, and checks them against each other.
func (r *reader) section(brace token, k *key) (end int) {
	if k.begin != nil {
		k.begin(r.d)
	}
	o := r.object(brace, k.fields)
	if k.end != nil {
		k.end(r, o)
	}
	return o.end
}

// list reads an array whose bracket was read.
func (r *reader) list(k *key) (end int) {
	path := r.path
	var words []string
	i := 0
	for ; r.dec.More(); i++ {
		r.path = path + "[" + strconv.Itoa(i) + "]"
		t := r.next()
		switch v := t.Token.(type) {
		case json.Delim:
			if k.kind == isObjects && v == '{' {
				r.section(t, k)
				continue
			}
		case string:
			if k.kind == isStrings {
				if r.text(t, k, k.rule.word(i)) {
					words = append(words, v)
					if k.each != nil {
						k.each(r, t)
					}
				}
				continue
			}
		}
		expected := "a string"
		if k.kind == isObjects {
			expected = "an object"
		}
		r.refuse(t.start, r.skip(t), expected, "")
	}
	r.path = path
	bracket := r.next()
	if k.rule.isCommand() && i == 0 {
		r.refuse(bracket.start-1, bracket.end, "a command", "leave the key out if there is none")
	}
	if k.kind == isStrings {
		*k.at(r.d).(*[]string) = words
	}
	return bracket.end
}

// stringMap reads an object of strings whose brace was read.
func (r *reader) stringMap(k *key) (end int) {
	path := r.path
	var m map[string]string
	for r.dec.More() {
		t := r.next()
		name := t.Token.(string)
		r.path = join(path, name)
		_, twice := m[name]
		if !r.text(t, k, k.keyRule) {
			r.skip(r.next())
			continue
		}
		if k.each != nil && !twice {
			k.each(r, t)
		}
		v := r.next()
		value, ok := v.Token.(string)
		switch {
		case twice:
			r.refuse(v.start, r.skip(v), "a key to stand once in its object", "remove one of the two")
			continue
		case !ok:
			r.refuse(v.start, r.skip(v), "a string", "")
		default:
			r.text(v, k, k.rule)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[name] = value
	}
	r.path = path
	*k.at(r.d).(*map[string]string) = m
	return r.next().end
}

// text checks a string.
func (r *reader) text(t token, k *key, rule rule) bool {
	s := t.Token.(string)
	expected, remedy := checkEncoding(r.data[t.start:t.end], s)
	if expected == "" {
		expected, remedy = k.check(s, rule)
	}
	if expected == "" {
		return true
	}
	r.refuse(t.start, t.end, expected, remedy)
	return false
}

// integer reads a number that must be written as an integer: neither 1.0 nor
// 1e3, which other readers of JSON take for integers or not.
func (r *reader) integer(t token, k *key) {
	n, err := strconv.ParseInt(string(t.Token.(json.Number)), 10, 64)
	if err == nil && n >= k.min && n <= k.max {
		switch p := k.at(r.d).(type) {
		case *int:
			*p = int(n)
		case *int64:
			*p = n
		}
		return
	}
	remedy := ""
	if k.max == Version && k.name == "version" && (n > Version) {
		remedy = "it was made by a newer nuc: upgrade nuc"
	}
	r.refuse(t.start, t.end, k.expected(), remedy)
}
