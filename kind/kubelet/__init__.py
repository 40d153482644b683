"""The lab's kubelet: runs the pods of one node through the node's runtime."""
