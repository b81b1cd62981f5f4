# fish completion for wasmatrix, by `wasmatrix completion fish`.

function __wasmatrix_complete
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	for line in (command $words[1] __complete $words[2..] "$current" 2>/dev/null)
		switch $line
			case ':files wasm'
				__fish_complete_path "$current" | string match -r '.*(?:/|\.wasm)(?:\t.*)?$'
			case ':files any'
				__fish_complete_path "$current"
			case ':files dirs'
				__fish_complete_directories "$current"
			case ':glued'
				# fish leaves no blank after = and : anyway.
			case '*'
				echo $line
		end
	end
end

complete -c wasmatrix -f -a '(__wasmatrix_complete)'
