tonic::include_proto!("inventory.v1");
