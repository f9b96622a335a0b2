"""Starting the ranks of a finetuning on one machine or several, and ending them all when one fails."""
