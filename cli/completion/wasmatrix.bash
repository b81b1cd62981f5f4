# bash completion for wasmatrix, by `wasmatrix completion bash`. bash 3.2 will do.

_wasmatrix() {
	# The words up to the cursor. bash also splits at = and :, which are in many of ours: what no blank separates is one.
	local line=${COMP_LINE:0:COMP_POINT} words=() last=-1 i rest
	for ((i = 0; i <= COMP_CWORD; i++)); do
		rest=${line#"${line%%[![:space:]]*}"}
		if ((i > 0 && ${#rest} == ${#line} && ${#rest} > 0)); then
			words[last]+=${COMP_WORDS[i]}
		elif ((i == 0 || ${#rest} != ${#line} || i < COMP_CWORD)); then
			words[++last]=${COMP_WORDS[i]}
		fi
		if ((i == COMP_CWORD)); then
			words[last]=${words[last]%"${COMP_WORDS[i]}"}$rest
		fi
		line=${rest#"${COMP_WORDS[i]}"}
	done
	local current=${words[last]} typed=
	# bash replaces only what follows the last of its separators.
	if [[ $COMP_WORDBREAKS == *=* && $COMP_WORDBREAKS == *:* ]]; then
		typed=${current%"${current##*[=:]}"}
	fi

	local word
	COMPREPLY=()
	while IFS=$'\t' read -r word _; do
		case $word in
		':files wasm')
			compopt -o filenames 2>/dev/null
			while read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -X '!*.wasm' -- "$current"; compgen -d -- "$current")
			;;
		':files any')
			compopt -o filenames 2>/dev/null
			while read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$current")
			;;
		':files dirs')
			compopt -o filenames 2>/dev/null
			while read -r word; do COMPREPLY+=("$word"); done < <(compgen -d -- "$current")
			;;
		:glued) compopt -o nospace 2>/dev/null ;;
		*) COMPREPLY+=("${word#"$typed"}") ;;
		esac
	done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)
}

complete -F _wasmatrix wasmatrix
