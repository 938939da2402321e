"""The registry: runs, adapters, versions and aliases in MLflow. The only room that knows MLflow."""
