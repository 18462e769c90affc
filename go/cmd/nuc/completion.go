package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCommand) Help() string {
	return `Commands, flags, and the names of containers are completed.

Examples:
  source <(nuc completion bash)
  nuc completion zsh >~/.zfunc/_nuc
  nuc completion fish >~/.config/fish/completions/nuc.fish`
}

func (s *completionCommand) Run(c *context, k *kong.Context) error {
	script := map[string]func([]completed) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[s.Shell]
	_, err := fmt.Fprint(c.stdout, script(completedCommands(k.Model.Node)))
	return err
}

// completed is what there is to complete of one command.
type completed struct {
	name, help string
	flags      []*kong.Flag
	// names and files tell what its arguments are.
	names, files bool
}

func completedCommands(root *kong.Node) []completed {
	list := []completed{{flags: root.Flags}}
	for _, node := range root.Children {
		if node.Hidden {
			continue
		}
		one := completed{name: node.Name, help: node.Help, flags: node.Flags}
		for _, p := range node.Positional {
			one.names = one.names || strings.Contains(p.Name, "name") || p.Name == "client"
			one.files = one.files || strings.Contains(p.Name, "descriptor") || strings.Contains(p.Name, "project")
		}
		list = append(list, one)
	}
	return list
}

// words are the command's flags as they are typed.
func (c completed) words() string {
	var words []string
	for _, f := range c.flags {
		words = append(words, "--"+f.Name)
		if f.Tag.Negatable != "" {
			words = append(words, "--no-"+f.Name)
		}
	}
	return strings.Join(words, " ")
}

func bashCompletion(commands []completed) string {
	var names []string
	var cases strings.Builder
	for _, c := range commands[1:] {
		names = append(names, c.name)
		fmt.Fprintf(&cases, "\t%s) flags='%s' names=%t files=%t ;;\n", c.name, c.words(), c.names, c.files)
	}
	return fmt.Sprintf(`# bash completion for nuc
_nuc() {
	local word=${COMP_WORDS[COMP_CWORD]} command= i flags names=false files=false
	for ((i = 1; i < COMP_CWORD; i++)); do
		if [[ ${COMP_WORDS[i]} != -* ]]; then
			command=${COMP_WORDS[i]}
			break
		fi
	done
	COMPREPLY=()
	case $command in
	'')
		mapfile -t COMPREPLY < <(compgen -W '%s %s' -- "$word")
		return
		;;
%s	esac
	if [[ $word == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
		return
	fi
	if $names; then
		mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" ps -aq 2>/dev/null)" -- "$word")
	fi
	if $files || [[ $command == completion ]]; then
		local more
		if [[ $command == completion ]]; then
			mapfile -t more < <(compgen -W 'bash zsh fish' -- "$word")
		else
			mapfile -t more < <(compgen -f -- "$word")
		fi
		COMPREPLY+=("${more[@]}")
	fi
}
complete -o filenames -F _nuc nuc
`, strings.Join(names, " "), commands[0].words(), cases.String())
}

func zshCompletion(commands []completed) string {
	var list, cases strings.Builder
	for _, c := range commands[1:] {
		fmt.Fprintf(&list, "\t\t%s\n", quoted(c.name+":"+c.help))
		fmt.Fprintf(&cases, "\t%s) flags=(%s) names=%t files=%t ;;\n", c.name, c.words(), c.names, c.files)
	}
	return fmt.Sprintf(`#compdef nuc
_nuc() {
	local -a commands flags containers
	local names=false files=false command=
	local i
	for ((i = 2; i < CURRENT; i++)); do
		if [[ ${words[i]} != -* ]]; then
			command=${words[i]}
			break
		fi
	done
	if [[ -z $command ]]; then
		commands=(
%s		)
		_describe command commands
		compadd -- %s
		return
	fi
	case $command in
%s	esac
	if [[ ${words[CURRENT]} == -* ]]; then
		compadd -- $flags
		return
	fi
	if [[ $command == completion ]]; then
		compadd bash zsh fish
		return
	fi
	if $names; then
		containers=(${(f)"$(${words[1]} ps -aq 2>/dev/null)"})
		compadd -- $containers
	fi
	if $files; then
		_files
	fi
}
if [[ $funcstack[1] == _nuc ]]; then
	_nuc "$@"
else
	compdef _nuc nuc
fi
`, list.String(), commands[0].words(), cases.String())
}

func fishCompletion(commands []completed) string {
	var b strings.Builder
	b.WriteString("# fish completion for nuc\ncomplete -c nuc -f\n")
	for _, f := range commands[0].flags {
		fmt.Fprintf(&b, "complete -c nuc -n __fish_use_subcommand -l %s -d %s\n", f.Name, quoted(f.Help))
	}
	for _, c := range commands[1:] {
		seen := "'__fish_seen_subcommand_from " + c.name + "'"
		fmt.Fprintf(&b, "complete -c nuc -n __fish_use_subcommand -a %s -d %s\n", c.name, quoted(c.help))
		for _, f := range c.flags {
			short := ""
			if f.Short != 0 {
				short = " -s " + string(f.Short)
			}
			fmt.Fprintf(&b, "complete -c nuc -n %s -l %s%s -d %s\n", seen, f.Name, short, quoted(f.Help))
		}
		if c.names {
			fmt.Fprintf(&b, "complete -c nuc -n %s -a '(nuc ps -aq 2>/dev/null)'\n", seen)
		}
		if c.files {
			fmt.Fprintf(&b, "complete -c nuc -n %s -F\n", seen)
		}
		if c.name == "completion" {
			fmt.Fprintf(&b, "complete -c nuc -n %s -a 'bash zsh fish'\n", seen)
		}
	}
	return b.String()
}

// quoted is a word in single quotes, for all three shells.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "’") + "'" }
